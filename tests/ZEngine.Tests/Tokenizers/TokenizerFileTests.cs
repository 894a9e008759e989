using System.Text;
using Xunit;
using ZEngine.Models;

namespace ZEngine.Tests.Tokenizers;

/// <summary>Damaged and unsupported files: every one ends in an <see cref="InvalidDataException"/> that names file and place.</summary>
public sealed class TokenizerFileTests
{
    private const string Abc = """{"a":0,"b":1,"c":2,"ab":3}""";
    private static readonly string Deep = string.Concat(Enumerable.Repeat("""{"type":"Sequence","normalizers":[""", 12)) + string.Concat(Enumerable.Repeat("]}", 12));
    private static readonly string Deeper = string.Concat(Enumerable.Repeat("""{"type":"Sequence","decoders":[""", 2000)) + string.Concat(Enumerable.Repeat("]}", 2000));

    public static TheoryData<string, string> Bad() => new()
    {
        { "", "$" },
        { "[]", "$: expected object, found array" },
        { "{}", "$: \"model\" is missing" },
        { """{"model":null}""", "$.model: expected object, found null" },
        { "\uFEFF{", "$" },
        { TokenizerFile.Json(Abc, extra: """ "colour":1,"""), "$.colour: this setting is not supported" },
        { TokenizerFile.Json(Abc).Replace("1.0", "2.0", StringComparison.Ordinal), "$.version: version \"2.0\"" },
        { TokenizerFile.Json(Abc).Replace("\"truncation\":null", "\"truncation\":{\"max_length\":5}", StringComparison.Ordinal), "$.truncation: truncation is not supported" },
        { TokenizerFile.Json(Abc).Replace("\"padding\":null", "\"padding\":{}", StringComparison.Ordinal), "$.padding: padding is not supported" },
        { TokenizerFile.Json(Abc).Replace("BPE", "Unigram", StringComparison.Ordinal), "$.model.type: the model kind \"Unigram\"" },
        { TokenizerFile.Json(Abc, model: """ "dropout":0.1,"""), "$.model.dropout: dropout" },
        { TokenizerFile.Json(Abc, model: """ "continuing_subword_prefix":"##","""), "$.model.continuing_subword_prefix" },
        { TokenizerFile.Json(Abc, model: """ "end_of_word_suffix":"</w>","""), "$.model.end_of_word_suffix" },
        { TokenizerFile.Json(Abc, model: """ "fuse_unk":1,"""), "$.model.fuse_unk: expected true or false, found number" },
        { TokenizerFile.Json(Abc, model: """ "unk_token":5,"""), "$.model.unk_token: expected string, found number" },
        { TokenizerFile.Json("{}"), "$.model.vocab: the vocabulary is empty" },
        { TokenizerFile.Json("[]"), "$.model.vocab: expected object, found array" },
        { TokenizerFile.Json("""{"a":-1}"""), "$.model.vocab.a: expected a whole number" },
        { TokenizerFile.Json("""{"a":1.5}"""), "$.model.vocab.a: expected a whole number" },
        { TokenizerFile.Json("""{"a":4000000000}"""), "$.model.vocab.a: expected a whole number" },
        { TokenizerFile.Json("""{"a":2000000000}"""), "$.model.vocab.a: expected a whole number" },
        { TokenizerFile.Json("""{"a":0,"b":0}"""), "$.model.vocab.b: the id 0 is given twice" },
        { TokenizerFile.Json("""{"a":0,"a":1}"""), "$" },
        { TokenizerFile.Json("""{"":0}"""), "a token without text" },
        { TokenizerFile.Json("""{"\ud800":0}"""), "$" },
        { TokenizerFile.Json(Abc, "{}"), "$.model.merges: expected array, found object" },
        { TokenizerFile.Json(Abc, """["ab"]"""), "$.model.merges[0]: a merge is two tokens" },
        { TokenizerFile.Json(Abc, """[["a","b"],["a","b","c"]]"""), "$.model.merges[1]: a merge is two tokens" },
        { TokenizerFile.Json(Abc, """["a b","a x"]"""), "$.model.merges[1]: the merge needs the token \"x\"" },
        { TokenizerFile.Json(Abc, """["b c"]"""), "$.model.merges[0]: the merge needs the token \"bc\"" },
        { TokenizerFile.Json(Abc, """[["a",7]]"""), "$.model.merges[0][1]: expected string, found number" },
        { TokenizerFile.Json(Abc, """[["a","\udc00"]]"""), "$.model.merges[0][1]: the text is not valid Unicode" },
        { TokenizerFile.Json(Abc, added: "{}"), "$.added_tokens: expected array, found object" },
        { TokenizerFile.Json(Abc, added: """[{"content":"x"}]"""), "$.added_tokens[0]: \"id\" is missing" },
        { TokenizerFile.Json(Abc, added: $"[{TokenizerFile.Added(9, "a")}]"), "$.added_tokens[0].id: \"a\" has the id 0" },
        { TokenizerFile.Json(Abc, added: $"[{TokenizerFile.Added(1, "<s>")}]"), "$.added_tokens[0].id: the id 1 is \"b\"" },
        { TokenizerFile.Json(Abc, added: $"[{TokenizerFile.Added(4, "x")},{TokenizerFile.Added(4, "y")}]"), "$.added_tokens[1].id: the id 4 is given twice" },
        { TokenizerFile.Json(Abc, added: $"[{TokenizerFile.Added(4, "x")},{TokenizerFile.Added(5, "x")}]"), "$.added_tokens[1].content: \"x\" is added twice" },
        { TokenizerFile.Json(Abc, added: $"[{TokenizerFile.Added(4, "")}]"), "$.added_tokens[0].content: an added token without text" },
        { TokenizerFile.Json(Abc, normalizer: """{"type":"Precompiled","precompiled_charsmap":""}"""), "$.normalizer: the normalizer \"Precompiled\"" },
        { TokenizerFile.Json(Abc, normalizer: """{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Nmt"}]}"""), "$.normalizer.normalizers[1]: the normalizer \"Nmt\"" },
        { TokenizerFile.Json(Abc, normalizer: """{"prepend":"x"}"""), "$.normalizer: \"type\" is missing" },
        { TokenizerFile.Json(Abc, normalizer: """{"type":"Prepend"}"""), "$.normalizer: \"prepend\" is missing" },
        { TokenizerFile.Json(Abc, normalizer: """{"type":"Replace","pattern":{"String":""},"content":"x"}"""), "$.normalizer.pattern.String: an empty pattern" },
        { TokenizerFile.Json(Abc, normalizer: """{"type":"Lowercase","language":"tr"}"""), "$.normalizer.language: this setting" },
        { TokenizerFile.Json(Abc, normalizer: Deep), "$.normalizer.normalizers[0].normalizers[0]" },
        { TokenizerFile.Json(Abc, decoder: Deeper), "$" },
        { TokenizerFile.Json(Abc, preTokenizer: """{"type":"UnicodeScripts"}"""), "$.pre_tokenizer: the pre-tokenizer \"UnicodeScripts\"" },
        { TokenizerFile.Json(Abc, preTokenizer: """{"type":"ByteLevel","add_prefix_space":"no"}"""), "$.pre_tokenizer.add_prefix_space: expected true or false" },
        { TokenizerFile.Json(Abc, preTokenizer: """{"type":"Metaspace","replacement":"__"}"""), "$.pre_tokenizer.replacement: expected a single character" },
        { TokenizerFile.Json(Abc, preTokenizer: """{"type":"Metaspace","replacement":"_","prepend_scheme":"last"}"""), "$.pre_tokenizer.prepend_scheme" },
        { TokenizerFile.Json(Abc, preTokenizer: """{"type":"Metaspace","replacement":"_","prepend_scheme":"first","add_prefix_space":false}"""), "$.pre_tokenizer.add_prefix_space: contradicts" },
        { TokenizerFile.Json(Abc, preTokenizer: TokenizerFile.Split("-", "Merged")), "$.pre_tokenizer.behavior: the split behavior \"Merged\"" },
        { TokenizerFile.Json(Abc, preTokenizer: TokenizerFile.Split(@"\p{Han}", kind: "Regex")), "$.pre_tokenizer.pattern.Regex: this regular expression" },
        { TokenizerFile.Json(Abc, preTokenizer: TokenizerFile.Split("(a", kind: "Regex")), "$.pre_tokenizer.pattern.Regex: this regular expression" },
        { TokenizerFile.Json(Abc, preTokenizer: TokenizerFile.Split("a", kind: "Glob")), "$.pre_tokenizer.pattern.Glob: this setting" },
        { TokenizerFile.Json(Abc, postProcessor: """{"type":"BertProcessing","sep":["a",0],"cls":["b",1]}"""), "$.post_processor: the post-processor \"BertProcessing\"" },
        { TokenizerFile.Json(Abc, postProcessor: """{"type":"TemplateProcessing","single":[],"special_tokens":{}}"""), "$.post_processor.single: the template lacks sequence A" },
        { TokenizerFile.Json(Abc, postProcessor: """{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{}}"""), "$.post_processor.single[0].SpecialToken.id: special_tokens has no" },
        { TokenizerFile.Json(Abc, postProcessor: """{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}}],"special_tokens":{"x":{"id":"x","ids":[4],"tokens":["x"]}}}"""), "$.post_processor.special_tokens.x.ids[0]: expected a whole number from 0 to 3" },
        { TokenizerFile.Json(Abc, decoder: """{"type":"WordPiece"}"""), "$.decoder: the decoder \"WordPiece\"" },
        { TokenizerFile.Json(Abc, decoder: """{"type":"Strip","content":" ","start":-1,"stop":0}"""), "$.decoder.start: expected a whole number" },
    };

    [Theory]
    [MemberData(nameof(Bad))]
    public void A_bad_file_is_refused_with_its_place(string json, string place)
    {
        var error = Assert.Throws<InvalidDataException>(() => TokenizerFile.Read(json));
        Assert.StartsWith(TokenizerFile.Name + ": $", error.Message, StringComparison.Ordinal);
        Assert.Contains(place, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_small_file_itself_is_good()
    {
        Tokenizer tokenizer = TokenizerFile.Read(TokenizerFile.Json(Abc, """["a b"]""", model: """ "dropout":0.0,"continuing_subword_prefix":"","""));
        Assert.Equal([3, 2], tokenizer.Encode("abc"));
    }

    [Fact]
    public void A_truncated_file_is_refused()
    {
        byte[] whole = Encoding.UTF8.GetBytes(Small());
        for (int length = 0; length < whole.Length; length += length < 1000 ? 1 : 37)
            Assert.Throws<InvalidDataException>(() => TokenizerFile.Read(whole[..length]));
    }

    [Fact]
    public void A_damaged_file_is_read_or_refused()
    {
        byte[] whole = Encoding.UTF8.GetBytes(Small());
        var random = new Random(17);
        int refused = 0;
        for (int round = 0; round < 3000; round++)
        {
            byte[] damaged = (byte[])whole.Clone();
            for (int i = 0; i <= random.Next(3); i++) damaged[random.Next(damaged.Length)] = (byte)random.Next(256);
            try
            {
                Tokenizer tokenizer = TokenizerFile.Read(damaged);
                tokenizer.Decode(tokenizer.Encode("the cat, 'tis"));
            }
            catch (InvalidDataException)
            {
                refused++;
            }
            catch (InvalidOperationException e) when (e.Message.StartsWith("The vocabulary has no token for U+", StringComparison.Ordinal))
            {
                refused++;                                      // the damage hit a token that the text needs
            }
        }
        Assert.InRange(refused, 300, 2999);
    }

    [Theory]
    [InlineData("{", "tokenizer_config.json: $")]
    [InlineData("""{"bos_token":7}""", "tokenizer_config.json: $.bos_token: expected string, found number")]
    [InlineData("""{"eos_token":{"text":"a"}}""", "tokenizer_config.json: $.eos_token: \"content\" is missing")]
    public void A_bad_configuration_is_refused_with_its_place(string config, string place)
    {
        var error = Assert.Throws<InvalidDataException>(() => TokenizerReader.Read(Encoding.UTF8.GetBytes(TokenizerFile.Json(Abc)), TokenizerFile.Name,
            Encoding.UTF8.GetBytes(config), "tokenizer_config.json"));
        Assert.StartsWith(place, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_missing_file_is_named()
    {
        string path = Path.Combine(Path.GetTempPath(), $"zengine-no-such-{Guid.NewGuid():N}.json");
        Assert.Contains(path, Assert.Throws<FileNotFoundException>(() => Tokenizer.Load(path)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_runaway_pattern_ends_in_an_exception()
    {
        var pattern = new RegexPattern("(?:(?:a|aa)+)+b", TimeSpan.FromMilliseconds(50));
        Assert.Throws<System.Text.RegularExpressions.RegexMatchTimeoutException>(() => pattern.FindAll(new string('a', 60) + "!b", []));
    }

    [Fact]
    public void A_failed_call_leaves_the_list_as_it_was()
    {
        Tokenizer tokenizer = TokenizerFile.Read(TokenizerFile.Json(Abc, added: $"[{TokenizerFile.Added(4, "|")}]"));
        var tokens = new List<int> { 5 };
        Assert.Throws<InvalidOperationException>(() => tokenizer.Encode("a|b|é", tokens));
        Assert.Equal([5], tokens);
    }

    private static string Small()
    {
        string path = Path.Combine(Path.GetTempPath(), $"zengine-tokenizer-{Guid.NewGuid():N}.json");
        try
        {
            BpeTrainer.Train(["the cat, 'tis the cat the mat"], 270, ["<pad>"]).Save(path);
            return File.ReadAllText(path);
        }
        finally
        {
            File.Delete(path);
        }
    }
}
