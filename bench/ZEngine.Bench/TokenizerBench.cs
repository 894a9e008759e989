using System.Text;
using System.Text.Json.Nodes;
using BenchmarkDotNet.Attributes;
using ZEngine.Models;

namespace ZEngine.Bench;

/// <summary>Encoding and decoding of 4 MB of invented words with natural frequencies: the n-th word of the lexicon occurs 1/n as often as the
/// first, and most words of the tail occur once.</summary>
[MemoryDiagnoser]
public class TokenizerBench
{
    private const int TextChars = 4 << 20;
    private const int LexiconWords = 200_000;

    private Tokenizer _tokenizer = new ByteTokenizer();
    private string _text = "";
    private int[] _ids = [];
    private readonly List<int> _tokens = [];

    /// <summary>The split pattern.</summary>
    [Params("gpt2", "llama3", "bytes")]
    public string Kind { get; set; } = "gpt2";

    /// <summary>Invents the text and learns a vocabulary from it.</summary>
    [GlobalSetup]
    public void Setup()
    {
        _text = InventText();
        _tokenizer = Kind switch
        {
            "gpt2" => BpeTrainer.Train([_text], 8192),
            "llama3" => WithLlama3Split(BpeTrainer.Train([_text], 8192)),
            _ => new ByteTokenizer(),
        };
        _ids = _tokenizer.Encode(_text);
    }

    /// <summary>Text to ids, warm.</summary>
    [Benchmark]
    public int Encode()
    {
        _tokens.Clear();
        _tokenizer.Encode(_text, _tokens);
        return _tokens.Count;
    }

    /// <summary>Ids to text.</summary>
    [Benchmark]
    public int Decode() => _tokenizer.Decode(_ids).Length;

    private static string InventText()
    {
        var random = new Random(1);
        string[] lexicon = [.. Enumerable.Range(0, LexiconWords).Select(_ =>
            new string([.. Enumerable.Range(0, 2 + random.Next(9)).Select(_ => "etaoinshrdlucmfwypvbgkjqxz"[(int)(26 * Math.Pow(random.NextDouble(), 2))])]))];
        var text = new StringBuilder(TextChars + 32);
        while (text.Length < TextChars)
        {
            int n = (int)Math.Exp(random.NextDouble() * Math.Log(LexiconWords));
            text.Append(lexicon[n]).Append(random.Next(12) switch { 0 => ", ", 1 => ".\n", 2 => " 1984 ", _ => " " });
        }
        return text.ToString();
    }

    private static Tokenizer WithLlama3Split(Tokenizer tokenizer)
    {
        string file = Path.ChangeExtension(Path.GetTempFileName(), ".json");
        try
        {
            tokenizer.Save(file);
            JsonNode root = JsonNode.Parse(File.ReadAllText(file))!;
            root["pre_tokenizer"] = JsonNode.Parse("""
                {"type": "Sequence", "pretokenizers": [
                  {"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex":
                    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
                  {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]}
                """);
            File.WriteAllText(file, root.ToJsonString());
            return Tokenizer.Load(file);
        }
        finally
        {
            File.Delete(file);
        }
    }
}
