using System.Text.Json;
using Xunit;
using ZEngine.Models;

namespace ZEngine.Tests.Tokenizers;

/// <summary>Every case of every folder under the golden <c>tokenizers/</c>; a new folder needs no code.</summary>
public sealed class TokenizerGolden
{
    private static readonly HashSet<string> Known = ["text", "ids", "ids_no_special", "tokens", "decoded", "decoded_skip_special"];

    public static TheoryData<string> Folders()
    {
        var folders = new TheoryData<string>();
        foreach (string folder in GoldenFolder.Cases("tokenizers"))
            folders.Add(Path.GetFileName(folder));
        return folders;
    }

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Folders))]
    public void Equals_the_reference(string folder)
    {
        string path = Path.Combine(GoldenFolder.Path, "tokenizers", folder);
        Tokenizer tokenizer = Tokenizer.Load(path);
        using JsonDocument cases = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(path, "cases.json")));
        var faults = new List<string>();
        int index = 0, compared = 0;
        foreach (JsonElement golden in cases.RootElement.EnumerateArray())
        {
            string place = $"{folder}/cases.json[{index++}]";
            foreach (JsonProperty member in golden.EnumerateObject())
                Assert.True(Known.Contains(member.Name), $"{place}.{member.Name}: this test does not know the field");
            string text = golden.GetProperty("text").GetString()!;
            int[] ids = tokenizer.Encode(text), plain = tokenizer.Encode(text, addSpecialTokens: false);
            Compare("ids", ids);
            Compare("ids_no_special", plain);
            Compare("tokens", ids.Select(tokenizer.TokenToText));
            if (golden.TryGetProperty("ids", out JsonElement idsElement))
            {
                int[] wanted = [.. idsElement.EnumerateArray().Select(id => id.GetInt32())];
                CompareText("decoded", tokenizer.Decode(wanted, skipSpecialTokens: false));
                CompareText("decoded_skip_special", tokenizer.Decode(wanted));
            }

            void Compare<T>(string field, IEnumerable<T> got)
            {
                if (!golden.TryGetProperty(field, out JsonElement want)) return;
                compared++;
                string[] gotItems = [.. got.Select(item => $"{item}")], wantItems = [.. want.EnumerateArray().Select(item => item.ToString())];
                int at = Enumerable.Range(0, Math.Max(gotItems.Length, wantItems.Length))
                    .FirstOrDefault(i => i >= gotItems.Length || i >= wantItems.Length || gotItems[i] != wantItems[i], -1);
                if (at >= 0) Fault($"{field}[{at}]", gotItems.ElementAtOrDefault(at) ?? "the end", wantItems.ElementAtOrDefault(at) ?? "the end");
            }

            void CompareText(string field, string got)
            {
                if (!golden.TryGetProperty(field, out JsonElement want)) return;
                compared++;
                if (got != want.GetString()) Fault(field, got, want.GetString()!);
            }

            void Fault(string field, string got, string want) =>
                faults.Add($"{place}.{field} of {Quote(text)}: got {Quote(got)}, want {Quote(want)}");
        }
        Assert.True(compared > 0, $"{folder}/cases.json holds nothing to compare");
        if (faults.Count > 0) Assert.Fail(faults[0] + (faults.Count > 1 ? $" (and {faults.Count - 1} more)" : ""));
    }

    private static string Quote(string text) => $"\"{JsonEncodedText.Encode(string.Concat(text.EnumerateRunes().Take(60)))}\"";
}
