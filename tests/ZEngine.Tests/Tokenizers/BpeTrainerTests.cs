using System.Text;
using Xunit;
using ZEngine.Models;

namespace ZEngine.Tests.Tokenizers;

public sealed class BpeTrainerTests
{
    private const string Text = "low low low lower lower newest newest newest newest widest widest aaaa aaaa banana bandana 'ababab' ababab";

    [Fact]
    public void Training_equals_the_definition()
    {
        foreach (int minimumCount in (int[])[1, 2])
        {
            string[] texts = [Text, TokenizerTests.RandomText(new(21), 400)];
            var tokenizer = BpeTrainer.Train(texts, 330, minimumCount: minimumCount);
            Assert.Equal(ByDefinition(texts, 330, minimumCount), Enumerable.Range(0, tokenizer.VocabularySize).Select(tokenizer.TokenToText));
        }
    }

    // Counts all pairs anew before every merge.
    private static List<string> ByDefinition(string[] texts, int size, int minimumCount)
    {
        List<string> tokens = [.. Enumerable.Range(0, 256).Select(b => ByteAlphabet.ToChar((byte)b).ToString()).Order(StringComparer.Ordinal)];
        var pieces = new List<(int, int)>();
        var words = new List<List<string>>();
        foreach (string text in texts)
        {
            pieces.Clear();
            new RegexPattern(Gpt2Split.Regex).FindAll(text, pieces);
            foreach ((int start, int end) in pieces)
                words.Add([.. Encoding.UTF8.GetBytes(text[start..end]).Select(b => ByteAlphabet.ToChar(b).ToString())]);
        }
        while (tokens.Count < size)
        {
            var best = words.SelectMany(word => word.Zip(word.Skip(1))).GroupBy(pair => pair).Where(group => group.Count() >= minimumCount)
                .OrderByDescending(group => group.Count()).ThenBy(group => tokens.IndexOf(group.Key.First)).ThenBy(group => tokens.IndexOf(group.Key.Second))
                .FirstOrDefault();
            if (best is null) break;
            (string left, string right) = best.Key;
            if (!tokens.Contains(left + right)) tokens.Add(left + right);
            foreach (List<string> word in words)
                for (int i = 0; i + 1 < word.Count; i++)
                    if (word[i] == left && word[i + 1] == right)
                    {
                        word[i] += right;
                        word.RemoveAt(i + 1);
                    }
        }
        return tokens;
    }

    [Fact]
    public void The_same_texts_give_the_same_file()
    {
        Assert.Equal(File(), File());

        static string File()
        {
            string path = Path.Combine(Path.GetTempPath(), $"zengine-tokenizer-{Guid.NewGuid():N}.json");
            try
            {
                BpeTrainer.Train([Text, TokenizerTests.RandomText(new(2), 5000)], 600, ["<pad>", "<|endoftext|>"]).Save(path);
                return System.IO.File.ReadAllText(path);
            }
            finally
            {
                System.IO.File.Delete(path);
            }
        }
    }

    [Fact]
    public void Special_tokens_come_first_and_are_matched_whole()
    {
        Tokenizer tokenizer = BpeTrainer.Train([Text], 280, ["<pad>", "<|endoftext|>"]);
        Assert.Equal(280, tokenizer.VocabularySize);
        Assert.Equal((null, 1, 0), (tokenizer.BosToken, tokenizer.EosToken, tokenizer.PadToken));
        int[] tokens = tokenizer.Encode("low<|endoftext|>low");
        Assert.Equal(1, Assert.Single(tokens, token => token < 2));
        Assert.Equal("lowlow", tokenizer.Decode(tokens));
    }

    [Fact]
    public void No_merge_spells_a_special_token()
    {
        Tokenizer tokenizer = BpeTrainer.Train([string.Concat(Enumerable.Repeat("abc ", 50))], 300, ["abc"]);
        // Seen through a text where the special token is not matched: the letters stay apart from the token of that name.
        Assert.DoesNotContain(0, tokenizer.Encode("ab") .Concat(tokenizer.Encode("bc")));
        Assert.True(tokenizer.TryGetToken("abc", out int token) && token == 0 && tokenizer.IsSpecial(0));
    }

    [Fact]
    public void Frequent_words_become_tokens()
    {
        Tokenizer tokenizer = BpeTrainer.Train([Text], 300);
        Assert.True(tokenizer.TryGetToken("Ġnewest", out int newest));
        Assert.Equal([newest], tokenizer.Encode(" newest"));
    }

    [Fact]
    public void Bad_requests_are_refused()
    {
        Assert.Throws<ArgumentOutOfRangeException>(() => BpeTrainer.Train([Text], 255));
        Assert.Throws<ArgumentOutOfRangeException>(() => BpeTrainer.Train([Text], 257, ["<a>", "<b>"]));
        Assert.Throws<ArgumentException>(() => BpeTrainer.Train([Text], 300, ["<a>", "<a>"]));
        Assert.Throws<ArgumentException>(() => BpeTrainer.Train([Text], 300, ["x"]));
        Assert.Throws<ArgumentOutOfRangeException>(() => BpeTrainer.Train([Text], 300, minimumCount: 0));
    }
}
