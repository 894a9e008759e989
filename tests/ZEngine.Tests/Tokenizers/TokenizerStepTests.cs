using System.Security.Cryptography;
using System.Text;
using Xunit;
using ZEngine.Models;

namespace ZEngine.Tests.Tokenizers;

/// <summary>Normalizers, added tokens, unknown characters, templates and decoders, each against what the format says.</summary>
public sealed class TokenizerStepTests
{
    [Theory]
    [InlineData("""{"type":"Lowercase"}""", "ÀB\u0130ΣΣ\U00010400", "àbi\u0307σσ\U00010428")]
    [InlineData("""{"type":"Strip","strip_left":true,"strip_right":false}""", " \u00A0a ", "a ")]
    [InlineData("""{"type":"Strip","strip_left":false,"strip_right":true}""", " a\n\u3000", " a")]
    [InlineData("""{"type":"StripAccents"}""", "e\u0301a\u0903", "ea")]
    [InlineData("""{"type":"Prepend","prepend":"__"}""", "a", "__a")]
    [InlineData("""{"type":"Replace","pattern":{"String":"aa"},"content":"$0"}""", "aaab", "$0ab")]
    [InlineData("""{"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "}""", "a   b c", "a b c")]
    [InlineData("""{"type":"ByteLevel"}""", "é ", "Ã©Ġ")]
    [InlineData("""{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"_"},{"type":"Replace","pattern":{"String":" "},"content":"_"}]}""", " a", "__a")]
    public void Normalizers(string normalizer, string text, string want)
    {
        var tokenizer = (BpeTokenizer)TokenizerFile.Read(TokenizerFile.Json("""{"a":0}""", normalizer: normalizer));
        Assert.Equal([want], tokenizer.Pieces(text));
    }

    [Theory]
    [InlineData("NFC", "e\u0301\u212B\u1100\u1161\u11A8", "éÅ각")]
    [InlineData("NFC", "a\u0315\u0300\u05AE\u0300b", "à\u05AE\u0300\u0315b")]
    [InlineData("NFD", "é각", "e\u0301\u1100\u1161\u11A8")]
    [InlineData("NFKC", "ﬁe\u0301", "fié")]
    [InlineData("NFKD", "Ⅷé", "VIIIe\u0301")]
    public void Normalization_forms(string form, string text, string want)
    {
        var tokenizer = (BpeTokenizer)TokenizerFile.Read(TokenizerFile.Json("""{"a":0}""", normalizer: $$"""{"type":"{{form}}"}"""));
        Assert.Equal([want], tokenizer.Pieces(text));
    }

    // The digests are those of Python's unicodedata 14.0.0 over the same texts.
    [Theory]
    [InlineData(NormalizationForm.FormC, "5fe6e0fef5f2d295ade4fe7a4870d0cdae7215ab8524337207010af1205f1dc8")]
    [InlineData(NormalizationForm.FormD, "6a0ad5308bb923bb3f69e3cb12221bfac82623a5988b810b66a5cd05efbbc3a2")]
    [InlineData(NormalizationForm.FormKC, "fc1abfba167ee57050d63f4f12c7c945a0ff1082eecebd6af33ce47b10ff8bac")]
    [InlineData(NormalizationForm.FormKD, "aa7948c7f67faac83dababedd4ba9ce2cc7d51b7e95a689fc22dfe2b1e309c51")]
    public void Normalization_forms_equal_the_reference(NormalizationForm form, string digest)
    {
        (int First, int Last)[] ranges =
        [
            (0x20, 0x7E), (0x41, 0x17F), (0x300, 0x36F), (0x590, 0x6FF), (0x900, 0xDFF), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2100, 0x33FF),
            (0xAC00, 0xD7A3), (0xF900, 0xFFEF), (0x1D100, 0x1D1FF), (0x2F800, 0x2FA1D),
        ];
        ulong state = 1;
        var texts = new List<string>();
        for (int i = 0; i < 20_000; i++)
        {
            var text = new StringBuilder();
            for (int left = 1 + Next(8); left > 0; left--)
            {
                (int first, int last) = ranges[Next(ranges.Length)];
                text.Append(new Rune(first + Next(last - first + 1)).ToString());
            }
            texts.Add(UnicodeNormalizer.Normalize(text.ToString(), form));
        }
        Assert.Equal(digest, Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(string.Join('\n', texts)))));

        int Next(int count)
        {
            state = state * 6364136223846793005 + 1442695040888963407;
            return (int)((state >> 33) % (ulong)count);
        }
    }

    [Fact]
    public void A_megabyte_of_marks_takes_no_quadratic_time()
    {
        string marks = string.Concat(Enumerable.Repeat("\u0301\u0316", 1 << 19));
        string normalized = UnicodeNormalizer.Normalize("e" + marks, NormalizationForm.FormC);
        Assert.Equal("é" + new string('\u0316', 1 << 19) + new string('\u0301', (1 << 19) - 1), normalized);
    }

    // The vocabulary: a=0 b=1 space=2 x=3 _=4, the added token t=9 spelled "[x]".
    [Theory]
    [InlineData(false, false, false, "a [x] b", "0 2 9 2 1")]
    [InlineData(false, true, false, "a  [x] b", "0 9 2 1")]
    [InlineData(false, false, true, "a [x]  b", "0 2 9 1")]
    [InlineData(false, true, true, "[x] [x] a", "9 9 0")]
    [InlineData(true, false, false, "a[x] [x]", "0 5 3 6 2 9")]
    [InlineData(true, false, false, "[x] -[x]- [x]_", "9 2 7 9 7 2 5 3 6 4")]
    public void Added_tokens(bool singleWord, bool left, bool right, string text, string want)
    {
        string added = TokenizerFile.Added(9, "[x]", singleWord, left, right);
        Tokenizer tokenizer = TokenizerFile.Read(TokenizerFile.Json(TokenizerFile.Vocabulary("a", "b", " ", "x", "_", "[", "]", "-"), added: $"[{added}]"));
        Assert.Equal(want, string.Join(' ', tokenizer.Encode(text)));
        Assert.Equal(10, tokenizer.VocabularySize);
    }

    [Fact]
    public void The_longest_added_token_wins_and_normalized_ones_are_found_after_normalization()
    {
        string added = $"[{TokenizerFile.Added(5, "XA")},{TokenizerFile.Added(6, "XAB", normalized: true, special: false)},{TokenizerFile.Added(7, "XAXA")}]";
        Tokenizer tokenizer = TokenizerFile.Read(TokenizerFile.Json(TokenizerFile.Vocabulary("a", "b", "x"), normalizer: """{"type":"Lowercase"}""", added: added));
        Assert.Equal([7, 5, 1], tokenizer.Encode("XAXAXAB"));
        Assert.Equal([6, 1, 6], tokenizer.Encode("xabbXaB"));
        // A decoder gets what the normalizer made of them, as it is its inverse: of Prepend in Llama 2's, for one, the space.
        Assert.Equal("xabb", tokenizer.Decode(tokenizer.Encode("xabbXA")).Replace(" ", "", StringComparison.Ordinal));
    }

    [Fact]
    public void A_prefix_goes_before_the_first_segment_only()
    {
        string metaspace = """{"type":"Metaspace","replacement":"_","prepend_scheme":"first","split":true}""";
        Tokenizer tokenizer = TokenizerFile.Read(TokenizerFile.Json(TokenizerFile.Vocabulary("a", "_"), preTokenizer: metaspace,
            added: $"[{TokenizerFile.Added(2, "[x]")}]"));
        Assert.Equal([1, 0, 2, 0, 1, 0], tokenizer.Encode("a[x]a a"));
        Assert.Equal([2, 0], tokenizer.Encode("[x]a"));
    }

    [Theory]
    [InlineData("", "aéa", null)]
    [InlineData(""" "unk_token":"?",""", "aéüa", "0 1 1 0")]
    [InlineData(""" "unk_token":"?","fuse_unk":true,""", "aéüaé", "0 1 0 1")]
    [InlineData(""" "unk_token":"?","fuse_unk":true,"byte_fallback":true,""", "aéaü日", "0 2 3 0 1")]
    [InlineData(""" "unk_token":"none",""", "é", null)]
    public void Unknown_characters(string model, string text, string? want)
    {
        // é is C3 A9; ü is C3 BC, and there is no token for BC.
        Tokenizer tokenizer = TokenizerFile.Read(TokenizerFile.Json(TokenizerFile.Vocabulary("a", "?", "<0xC3>", "<0xA9>"), model: model));
        if (want is not null) Assert.Equal(want, string.Join(' ', tokenizer.Encode(text)));
        else Assert.Contains("U+00E9", Assert.Throws<InvalidOperationException>(() => tokenizer.Encode(text)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_whole_token_needs_no_merges_when_they_are_ignored()
    {
        string vocabulary = TokenizerFile.Vocabulary("a", "b", "c", "ab", "abc");
        foreach (bool ignores in (bool[])[false, true])
        {
            Tokenizer tokenizer = TokenizerFile.Read(TokenizerFile.Json(vocabulary, """["a b"]""", model: $"\"ignore_merges\":{(ignores ? "true" : "false")},"));
            Assert.Equal(ignores ? [4] : [3, 2], tokenizer.Encode("abc"));
        }
    }

    [Fact]
    public void Templates_surround_the_text()
    {
        const string template = """
            {"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"B","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"E","type_id":0}}],
             "pair":[],"special_tokens":{"B":{"id":"B","ids":[1,2],"tokens":["b","c"]},"E":{"id":"E","ids":[2],"tokens":["c"]}}}
            """;
        string sequence = $$"""{"type":"Sequence","processors":[{"type":"ByteLevel","trim_offsets":false},{{template}}]}""";
        foreach (string processor in (string[])[template, sequence])
        {
            Tokenizer tokenizer = TokenizerFile.Read(TokenizerFile.Json(TokenizerFile.Vocabulary("a", "b", "c"), postProcessor: processor));
            Assert.Equal([1, 2, 0, 2], tokenizer.Encode("a"));
            Assert.Equal([1, 2, 2], tokenizer.Encode(""));
            Assert.Equal([0], tokenizer.Encode("a", addSpecialTokens: false));
        }
    }

    // Tokens: _a=0 b=1 <0xC3>=2 <0xA9>=3 space=4 __=5 Ã=6 ©=7 aXb=8
    [Theory]
    [InlineData("null", "0 1 1", "_a b b")]
    [InlineData("""{"type":"Fuse"}""", "0 1 1", "_abb")]
    [InlineData("""{"type":"ByteFallback"}""", "1 2 3 1", "béb")]
    [InlineData("""{"type":"ByteFallback"}""", "2 3 2 1 3", "\uFFFD\uFFFD\uFFFDb\uFFFD")]
    [InlineData("""{"type":"ByteLevel"}""", "6 7 1 6", "éb\uFFFD")]
    [InlineData("""{"type":"Metaspace","replacement":"_","prepend_scheme":"always"}""", "5 0 5", " a  ")]
    [InlineData("""{"type":"Metaspace","replacement":"_","prepend_scheme":"never"}""", "0 0", " a a")]
    [InlineData("""{"type":"Strip","content":"_","start":1,"stop":1}""", "0 5 1", "ab")]
    [InlineData("""{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Strip","content":"_","start":2,"stop":3}]}""", "5 5 1 5 0 5 5", "__b___a_")]
    [InlineData("""{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Strip","content":"_","start":0,"stop":1}]}""", "1 5 5", "b___")]
    [InlineData("""{"type":"Replace","pattern":{"String":"_"},"content":"+-"}""", "0 5", "+-a+-+-")]
    [InlineData("""{"type":"Replace","pattern":{"String":"aX"},"content":""}""", "8 1", "bb")]
    [InlineData("""{"type":"Replace","pattern":{"Regex":"[aX]+"},"content":"."}""", "8 0", ".b_.")]
    [InlineData("""{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Replace","pattern":{"String":"bb"},"content":"c"}]}""", "1 1 1", "cb")]
    public void Decoders(string decoder, string tokens, string want)
    {
        Tokenizer tokenizer = TokenizerFile.Read(TokenizerFile.Json(
            TokenizerFile.Vocabulary("_a", "b", "<0xC3>", "<0xA9>", " ", "__", "Ã", "©", "aXb"), decoder: decoder));
        int[] ids = [.. tokens.Split(' ').Select(int.Parse)];
        Assert.Equal(want, tokenizer.Decode(ids));
        StreamingDecoder stream = tokenizer.NewStreamingDecoder();
        Assert.Equal(want, string.Concat(ids.Select(stream.Push)) + stream.Flush());
    }

    [Fact]
    public void Special_tokens_are_skipped_or_shown()
    {
        Tokenizer tokenizer = TokenizerTests.Make("byte_level_gpt2");
        int[] tokens = tokenizer.Encode("a<|endoftext|>b");
        Assert.Equal("ab", tokenizer.Decode(tokens));
        Assert.Equal("a<|endoftext|>b", tokenizer.Decode(tokens, skipSpecialTokens: false));
        Assert.Equal("<|endoftext|>", tokenizer.Decode(0));
        Assert.True(tokenizer.IsSpecial(0));
        Assert.False(tokenizer.IsSpecial(5));
    }
}
