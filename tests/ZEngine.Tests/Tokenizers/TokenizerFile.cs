using System.Text;
using System.Text.Json.Nodes;
using ZEngine.Models;

namespace ZEngine.Tests.Tokenizers;

/// <summary>Small tokenizer files, written section by section.</summary>
internal static class TokenizerFile
{
    public const string Name = "small.json";

    /// <summary>The vocabulary of single characters a test's texts need, with ids in the order given.</summary>
    public static string Vocabulary(params string[] tokens) =>
        "{" + string.Join(",", tokens.Select((token, id) => $"{JsonValue.Create(token).ToJsonString()}:{id}")) + "}";

    public static string Json(string vocab, string merges = "[]", string model = "", string normalizer = "null", string preTokenizer = "null",
        string postProcessor = "null", string decoder = "null", string added = "[]", string extra = "") =>
        $$"""
        {"version":"1.0","truncation":null,"padding":null,{{extra}}"added_tokens":{{added}},"normalizer":{{normalizer}},
         "pre_tokenizer":{{preTokenizer}},"post_processor":{{postProcessor}},"decoder":{{decoder}},
         "model":{"type":"BPE",{{model}}"vocab":{{vocab}},"merges":{{merges}} } }
        """;

    public static Tokenizer Read(string json) => Read(Encoding.UTF8.GetBytes(json));

    public static Tokenizer Read(byte[] json) => TokenizerReader.Read(json, Name, null, "tokenizer_config.json");

    /// <summary>The pieces that a pre-tokenizer makes, seen through a vocabulary that has a token for every character only.</summary>
    public static string[] Pieces(string preTokenizer, string text)
    {
        string[] characters = [.. text.EnumerateRunes().Select(rune => rune.ToString()).Append("_").Append(" ").Distinct()];
        var tokenizer = (BpeTokenizer)Read(Json(Vocabulary(characters), preTokenizer: preTokenizer));
        return tokenizer.Pieces(text);
    }

    public static string Added(int id, string content, bool singleWord = false, bool left = false, bool right = false, bool normalized = false,
        bool special = true) =>
        $$"""{"id":{{id}},"content":"{{content}}","single_word":{{Bool(singleWord)}},"lstrip":{{Bool(left)}},"rstrip":{{Bool(right)}},"normalized":{{Bool(normalized)}},"special":{{Bool(special)}}}""";

    public static string Split(string pattern, string behavior = "Isolated", bool invert = false, string kind = "String") =>
        $$"""{"type":"Split","pattern":{"{{kind}}":{{JsonValue.Create(pattern).ToJsonString()}}},"behavior":"{{behavior}}","invert":{{Bool(invert)}}}""";

    private static string Bool(bool value) => value ? "true" : "false";
}
