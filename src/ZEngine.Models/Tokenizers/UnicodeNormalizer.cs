using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace ZEngine.Models;

/// <summary>The Unicode normalization forms (UAX 15). .NET's own are ICU's, and without ICU they return the text unchanged without a word,
/// so a tokenizer cannot rest on them.</summary>
internal static class UnicodeNormalizer
{
    private const int FirstSyllable = 0xAC00, FirstLead = 0x1100, FirstVowel = 0x1161, BeforeTrail = 0x11A7;
    private const int Leads = 19, Vowels = 21, Trails = 28, Syllables = Leads * Vowels * Trails;

    private static readonly Lazy<Tables> Data = new(Read);

    public static string Normalize(string text, NormalizationForm form)
    {
        // ASCII is in every form, and nothing below U+0300 changes in form C.
        bool composes = form is NormalizationForm.FormC or NormalizationForm.FormKC;
        bool isCompatible = form is NormalizationForm.FormKC or NormalizationForm.FormKD;
        if (Ascii.IsValid(text) || form == NormalizationForm.FormC && text.AsSpan().IndexOfAnyExceptInRange('\0', '\u02FF') < 0) return text;

        Tables data = Data.Value;
        var runes = new List<(int Value, int Order)>(text.Length);
        foreach (Rune rune in text.EnumerateRunes()) Decompose(rune.Value, isCompatible, data, runes);
        SortMarks(runes);
        if (composes) Compose(runes, data);

        var normalized = new StringBuilder(text.Length);
        Span<char> units = stackalloc char[2];
        foreach ((int value, _) in runes) normalized.Append(units[..new Rune(value).EncodeToUtf16(units)]);
        return normalized.ToString();
    }

    private static void Decompose(int value, bool isCompatible, Tables data, List<(int, int)> runes)
    {
        int syllable = value - FirstSyllable;
        if (syllable is >= 0 and < Syllables)
        {
            runes.Add((FirstLead + syllable / (Vowels * Trails), 0));
            runes.Add((FirstVowel + syllable / Trails % Vowels, 0));
            if (syllable % Trails > 0) runes.Add((BeforeTrail + syllable % Trails, 0));
        }
        else if (isCompatible && data.Compatible.TryGetValue(value, out int[]? parts) || data.Canonical.TryGetValue(value, out parts))
            foreach (int part in parts) runes.Add((part, data.Order.GetValueOrDefault(part)));
        else runes.Add((value, data.Order.GetValueOrDefault(value)));
    }

    // Marks stand in the order of their classes; equal classes keep their order. Runs come from the user, so the sort must not be quadratic.
    private static void SortMarks(List<(int Value, int Order)> runes)
    {
        for (int start = 0, end; start < runes.Count; start = end)
        {
            for (end = start + 1; end < runes.Count && runes[start].Order > 0 && runes[end].Order > 0; end++) { }
            if (end - start < 2) continue;
            Span<(int Value, int Order)> run = CollectionsMarshal.AsSpan(runes)[start..end];
            (int, int)[] sorted = [.. run.ToArray().OrderBy(mark => mark.Order)];
            sorted.CopyTo(run);
        }
    }

    private static void Compose(List<(int Value, int Order)> runes, Tables data)
    {
        int starter = -1, kept = 0, lastOrder = -1;             // of what stands between the starter and here; -1 when nothing does
        for (int i = 0; i < runes.Count; i++)
        {
            (int value, int order) = runes[i];
            bool isBlocked = lastOrder >= order;
            if (starter >= 0 && !isBlocked && Pair(runes[starter].Value, value, data) is { } composite)
            {
                runes[starter] = (composite, 0);
                continue;
            }
            if (order == 0) (starter, lastOrder) = (kept, -1);
            else lastOrder = order;
            runes[kept++] = (value, order);
        }
        runes.RemoveRange(kept, runes.Count - kept);
    }

    private static int? Pair(int first, int second, Tables data)
    {
        int lead = first - FirstLead, vowel = second - FirstVowel;
        if (lead is >= 0 and < Leads && vowel is >= 0 and < Vowels) return FirstSyllable + (lead * Vowels + vowel) * Trails;
        int syllable = first - FirstSyllable, trail = second - BeforeTrail;
        if (syllable is >= 0 and < Syllables && syllable % Trails == 0 && trail is > 0 and < Trails) return first + trail;
        return data.Composites.TryGetValue((first, second), out int composite) ? composite : null;
    }

    private static Tables Read()
    {
        var data = new Tables();
        using Stream stream = typeof(UnicodeNormalizer).Assembly.GetManifestResourceStream("ZEngine.Models.UnicodeNormalization.txt")!;
        using var reader = new StreamReader(stream);
        string section = "";
        while (reader.ReadLine() is { } line)
        {
            if (line.StartsWith('#')) continue;
            if (line.StartsWith('[')) section = line;
            else if (section == "[order]") ReadOrder(line, data);
            else
                foreach (string item in line.Split("; "))
                {
                    int[] numbers = [.. item.Split(' ').Select(Hex)];
                    if (section == "[compose]") data.Composites.Add((numbers[0], numbers[1]), numbers[2]);
                    else (section == "[canonical]" ? data.Canonical : data.Compatible).Add(numbers[0], numbers[1..]);
                }
        }
        return data;
    }

    private static void ReadOrder(string line, Tables data)
    {
        string[] items = line.Split(' ');
        int order = int.Parse(items[0], CultureInfo.InvariantCulture);
        foreach (string range in items[1..])
        {
            string[] ends = range.Split('-');
            for (int value = Hex(ends[0]); value <= Hex(ends[^1]); value++) data.Order.Add(value, order);
        }
    }

    private static int Hex(string text) => int.Parse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);

    private sealed class Tables
    {
        public Dictionary<int, int> Order { get; } = [];

        public Dictionary<(int First, int Second), int> Composites { get; } = [];

        public Dictionary<int, int[]> Canonical { get; } = [];

        public Dictionary<int, int[]> Compatible { get; } = [];
    }
}
