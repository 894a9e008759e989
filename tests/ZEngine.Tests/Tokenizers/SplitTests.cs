using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Xunit;
using ZEngine.Models;

namespace ZEngine.Tests.Tokenizers;

/// <summary>How text is cut: patterns, behaviors, pre-tokenizers.</summary>
public sealed class SplitTests
{
    public static TheoryData<string> Known() => [Gpt2Split.Regex, Llama3Split.Regex, Llama3Split.SingleDigitRegex];

    [Theory]
    [MemberData(nameof(Known))]
    public void A_scanner_equals_its_pattern(string pattern)
    {
        SplitPattern scanner = SplitPattern.FromRegex(pattern);
        Assert.IsNotType<RegexPattern>(scanner);
        var regex = new RegexPattern(pattern);
        var plain = new Regex(pattern, RegexOptions.CultureInvariant);
        var random = new Random(31);
        List<(int, int)> got = [], want = [];
        for (int i = 0; i < 20_000; i++)
        {
            string text = i % 3 == 0 ? RandomBmp(random) : TokenizerTests.RandomText(random, 1 + random.Next(12));
            got.Clear();
            want.Clear();
            scanner.FindAll(text, got);
            regex.FindAll(text, want);
            if (!got.SequenceEqual(want)) Assert.Fail($"{Show(text)}: scanner {string.Join(' ', got)}, pattern {string.Join(' ', want)}");
            // Without the characters for which the dialects differ, .NET's own reading of the pattern has to agree too.
            if (text.Any(c => char.IsSurrogate(c) || c == '\u017F')) continue;
            Assert.Equal(plain.Matches(text).Select(match => (match.Index, match.Index + match.Length)), got);
        }
    }

    // The patterns of GPT-4 (possessive), GPT-4o, Mistral NeMo and Falcon, which have no scanner.
    [Theory]
    [InlineData(@"(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        @"(?i:[sdmt]|ll|ve|re)|(?>[^\r\n\p{L}\p{N}]?)\p{L}+|\p{N}{1,3}| ?(?>[^\s\p{L}\p{N}]+)[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")]
    [InlineData(@"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+", null)]
    [InlineData(@"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+", null)]
    [InlineData("[0-9][0-9][0-9]", null)]
    public void Patterns_of_published_tokenizers_are_read(string pattern, string? plainPattern)
    {
        var regex = new RegexPattern(pattern);
        var plain = new Regex(plainPattern ?? pattern, RegexOptions.CultureInvariant);
        var random = new Random(37);
        List<(int, int)> got = [];
        for (int i = 0; i < 3000; i++)
        {
            string text = RandomBmp(random).Replace("\u017F", "", StringComparison.Ordinal);
            got.Clear();
            regex.FindAll(text, got);
            Assert.Equal(plain.Matches(text).Select(match => (match.Index, match.Index + match.Length)), got);
        }
    }

    private static string RandomBmp(Random random) => new([.. Enumerable.Range(0, 20).Select(_ => (char)(random.Next(3) switch
    {
        0 => random.Next(0x20, 0x7F),
        1 => random.Next(0x250),
        _ => random.Next(0xD800),
    }))]);

    private static string Show(string text) => string.Concat(text.Select(c => char.IsAscii(c) && !char.IsControl(c) ? c.ToString() : $"\\u{(int)c:X4}"));

    [Theory]
    [InlineData("Removed", "the|final|countdown")]
    [InlineData("Isolated", "the|-|final|-|-|countdown")]
    [InlineData("MergedWithPrevious", "the-|final-|-|countdown")]
    [InlineData("MergedWithNext", "the|-final|-|-countdown")]
    [InlineData("Contiguous", "the|-|final|--|countdown")]
    public void Split_behaviors(string behavior, string want) =>
        Assert.Equal(want.Split('|'), TokenizerFile.Pieces(TokenizerFile.Split("-", behavior), "the-final--countdown"));

    [Theory]
    [InlineData("Removed", "the|final|countdown")]
    [InlineData("Isolated", "the|-|final|--|countdown")]
    [InlineData("MergedWithPrevious", "the-|final--|countdown")]
    [InlineData("MergedWithNext", "the|-final|--countdown")]
    [InlineData("Contiguous", "the|-|final|--|countdown")]
    public void Inverted_split_behaviors(string behavior, string want) =>
        Assert.Equal(want.Split('|'), TokenizerFile.Pieces(TokenizerFile.Split("[^-]+", behavior, invert: true, kind: "Regex"), "the-final--countdown"));

    [Theory]
    [InlineData("""{"type":"Digits","individual_digits":true}""", "ab12 ½c", "ab|1|2| |½|c")]
    [InlineData("""{"type":"Digits","individual_digits":false}""", "ab12 ½c", "ab|12| |½|c")]
    [InlineData("""{"type":"Whitespace"}""", "Hey, you_1 don't!\n é\u0301🙂", "Hey|,|you_1|don|'|t|!|é\u0301|🙂")]
    [InlineData("""{"type":"WhitespaceSplit"}""", " Hey, you\u00A0there\n", "Hey,|you|there")]
    [InlineData("""{"type":"Punctuation"}""", "a$b—c..", "a|$|b|—|c|.|.")]
    [InlineData("""{"type":"Punctuation","behavior":"Contiguous"}""", "a..b", "a|..|b")]
    [InlineData("""{"type":"Metaspace","replacement":"_","prepend_scheme":"always","split":true}""", "Hey  you", "_Hey|_|_you")]
    [InlineData("""{"type":"Metaspace","replacement":"_","prepend_scheme":"always","split":false}""", "Hey  you", "_Hey__you")]
    [InlineData("""{"type":"Metaspace","replacement":"_","prepend_scheme":"never","split":true}""", "Hey you", "Hey|_you")]
    [InlineData("""{"type":"Metaspace","replacement":"_","add_prefix_space":false}""", "Hey you", "Hey|_you")]
    [InlineData("""{"type":"Metaspace","replacement":"_"}""", " Hey", "_Hey")]
    [InlineData("""{"type":"Sequence","pretokenizers":[{"type":"WhitespaceSplit"},{"type":"Metaspace","replacement":"_","prepend_scheme":"first"}]}""", "Hey you", "_Hey|you")]
    [InlineData("""{"type":"Sequence","pretokenizers":[{"type":"WhitespaceSplit"},{"type":"Metaspace","replacement":"_","prepend_scheme":"first"}]}""", " Hey you", "Hey|you")]
    [InlineData("""{"type":"ByteLevel","add_prefix_space":true,"use_regex":true}""", "Hé you're", "ĠHÃ©|Ġyou|'re")]
    [InlineData("""{"type":"ByteLevel","add_prefix_space":true,"use_regex":false}""", " a b", "ĠaĠb")]
    [InlineData("""{"type":"Sequence","pretokenizers":[]}""", "a b", "a b")]
    public void Pre_tokenizers(string preTokenizer, string text, string want) =>
        Assert.Equal(want.Split('|'), TokenizerFile.Pieces(preTokenizer, text));

    [Theory]
    [InlineData("(?i:'s)|.", "a'\u017Fb", "a|'\u017F|b")]
    [InlineData("(?i:[a-z]+)", "a\u212Ab-", "a\u212Ab|-")]
    [InlineData(@"\p{Lu}\p{Ll}*", "Ab𝐀b𝐀", "Ab|𝐀b|𝐀")]
    [InlineData(@"\w+", "a\u0903b\u24D0 🅐c-", "a\u0903b\u24D0| |🅐c|-")]
    [InlineData(@"[^\w\s]", "a-🙂b", "a|-|🙂|b")]
    [InlineData(@".{2}", "🙂🙂🙂", "🙂🙂|🙂")]
    [InlineData(@"a++b?+|\x41\u0042", "aabAB", "aab|AB")]
    [InlineData("^a|b$", "a\nab\nb", "a|\n|a|b|\n|b")]
    [InlineData("x*", "axb", "a|x|b")]
    [InlineData(@"(?<=a)b(?!c)|(?>d+)(?=e)", "abacbdde", "a|b|acb|dd|e")]
    public void Patterns_keep_their_meaning(string pattern, string text, string want) =>
        Assert.Equal(want.Split('|'), TokenizerFile.Pieces(TokenizerFile.Split(pattern, kind: "Regex"), text));

    [Theory]
    [InlineData(@"\bword")]
    [InlineData(@"\h+")]
    [InlineData(@"\R")]
    [InlineData(@"(a)\1")]
    [InlineData(@"(?<name>a)")]
    [InlineData(@"(?i)a")]
    [InlineData(@"[a-z&&[^b]]")]
    [InlineData(@"[[:alpha:]]")]
    [InlineData(@"\p{Greek}")]
    [InlineData(@"\p{^L}")]
    [InlineData(@"(?i:\p{Lu})")]
    [InlineData("(?i:stra\u00DFe)")]
    [InlineData("(?i:pass)")]
    [InlineData("(?i:[^a])")]
    [InlineData(@"a{,3}")]
    [InlineData(@"a{2}?")]
    [InlineData(@"a{2,3}+")]
    [InlineData(@"a**")]
    [InlineData("🙂")]
    [InlineData("[\u4E00-\uFFFF]")]
    [InlineData(@"\x{1F600}")]
    [InlineData("[z-a]")]
    [InlineData("a)")]
    [InlineData("[a")]
    [InlineData("+")]
    [InlineData("a\\")]
    public void Patterns_with_another_meaning_in_this_dialect_are_refused(string pattern) =>
        Assert.Throws<FormatException>(() => SplitPattern.FromRegex(pattern));

    [Fact]
    public void Deep_and_long_patterns_do_no_harm()
    {
        var matches = new List<(int, int)>();
        new RegexPattern(new string('(', 1500) + "a" + new string(')', 1500)).FindAll("ba", matches);
        Assert.Equal([(1, 2)], matches);
        Assert.Throws<FormatException>(() => new RegexPattern(new string('a', 5000)));
        Assert.Throws<FormatException>(() => new RegexPattern("a{99999999999}"));
    }

    [Fact]
    public void Stand_ins_have_the_category_they_stand_for()
    {
        for (int value = 0x10000; value <= 0x10FFFF; value += value < 0x20000 ? 1 : 997)
        {
            var rune = new Rune(value);
            char standIn = RegexDialect.StandIn(rune);
            Assert.Equal(Rune.GetUnicodeCategory(rune), CharUnicodeInfo.GetUnicodeCategory(standIn));
            Assert.Equal(UnicodeText.IsWord(rune), UnicodeText.IsWord(new Rune(standIn)));
        }
    }
}
