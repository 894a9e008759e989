using System.Text.Json;

namespace ZEngine.Models;

/// <summary>Which tokens open a text, end it and fill a batch.</summary>
/// <param name="Bos">Opens.</param>
/// <param name="Eos">Ends.</param>
/// <param name="Pad">Fills.</param>
/// <param name="Config">The file that said so, to be saved as it was; null when the names did.</param>
internal sealed record SpecialRoles(int? Bos, int? Eos, int? Pad, byte[]? Config)
{
    public const string ConfigFileName = "tokenizer_config.json";

    private static readonly string[] BosNames = ["<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>"];
    private static readonly string[] EosNames = ["</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"];
    private static readonly string[] PadNames = ["<pad>", "[PAD]", "<|pad|>", "<|padding|>"];

    /// <summary>Takes the roles from the configuration; without one, from the usual names among the special tokens. A role whose token
    /// the vocabulary lacks stays unknown.</summary>
    public static SpecialRoles Read(byte[]? config, string file, AddedToken[] added, BpeModel model)
    {
        if (config is null) return new(Named(BosNames), Named(EosNames), Named(PadNames), null);
        using JsonDocument document = TokenizerReader.Parse(config, file);
        JsonPlace root = new JsonPlace(document.RootElement, file).Expect(JsonValueKind.Object);
        return new(Configured("bos_token"), Configured("eos_token"), Configured("pad_token"), config);

        int? Named(string[] names) => names.Select(name => added.FirstOrDefault(token => token.IsSpecial && token.Content == name))
            .FirstOrDefault(token => token is not null)?.Id;

        int? Configured(string role)
        {
            if (!root.TryGetValue(role, out JsonPlace place)) return null;
            string text = (place.Element.ValueKind == JsonValueKind.Object ? place["content"] : place).AsString();
            return added.FirstOrDefault(token => token.Content == text)?.Id ?? (model.TryGet(text, out int token) ? token : null);
        }
    }
}
