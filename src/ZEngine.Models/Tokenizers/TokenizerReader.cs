using System.Text.Json;

namespace ZEngine.Models;

/// <summary>Reads <c>tokenizer.json</c>: the frame, the model and the added tokens. <see cref="PipelineReader"/> reads the steps.</summary>
internal static class TokenizerReader
{
    /// <summary>Ids beyond this are taken for damage: a vocabulary is an array.</summary>
    private const int MostId = (1 << 24) - 1;

    public static BpeTokenizer Read(byte[] json, string file, byte[]? configJson, string configFile)
    {
        using JsonDocument document = Parse(json, file);
        JsonPlace root = new JsonPlace(document.RootElement, file).Expect(JsonValueKind.Object);
        root.Only("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model");
        if (root.TryGetValue("version", out JsonPlace version) && version.AsString() != "1.0")
            throw version.Error($"version \"{version.AsString()}\" is not supported, only \"1.0\".");
        foreach (string name in (string[])["truncation", "padding"])
            if (root.TryGetValue(name, out JsonPlace section)) throw section.Error($"{name} is not supported: it belongs to the caller, not to the text.");

        BpeModel model = ReadModel(root["model"]);
        AddedToken[] added = root.TryGetValue("added_tokens", out JsonPlace addedPlace) ? ReadAdded(addedPlace, model) : [];
        int size = Math.Max(model.Texts.Length, added.Length == 0 ? 0 : added.Max(token => token.Id) + 1);
        var steps = PipelineReader.Read(root, size);
        SpecialRoles roles = SpecialRoles.Read(configJson, configFile, added, model);
        return new BpeTokenizer(model, added, steps, roles, size);
    }

    public static JsonDocument Parse(byte[] json, string file)
    {
        try
        {
            return JsonDocument.Parse(json, new() { AllowDuplicateProperties = false });
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"{file}: {e.Path ?? "$"}: {e.Message}", e);
        }
        catch (InvalidOperationException e)                     // while it compares names
        {
            throw new InvalidDataException($"{file}: $: a name is not valid Unicode.", e);
        }
    }

    private static BpeModel ReadModel(JsonPlace place)
    {
        string type = place.TryGetValue("type", out JsonPlace typePlace) ? typePlace.AsString() : "BPE";
        if (type != "BPE") throw typePlace.Error($"the model kind \"{type}\" is not supported, only \"BPE\".");
        place.Only("type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
            "ignore_merges", "vocab", "merges");
        if (place.TryGetValue("dropout", out JsonPlace dropout)
            && !(dropout.Expect(JsonValueKind.Number).Element.TryGetDouble(out double rate) && rate == 0))
            throw dropout.Error("dropout is not supported: encoding would be random.");
        foreach (string name in (string[])["continuing_subword_prefix", "end_of_word_suffix"])
            if (place.TryGetValue(name, out JsonPlace affix) && affix.AsString().Length > 0) throw affix.Error($"{name} is not supported.");

        Dictionary<string, int> tokens = ReadVocabulary(place["vocab"]);
        var settings = new ModelSettings(place.TryGetValue("unk_token", out JsonPlace unknown) ? unknown.AsString() : null,
            place.Bool("fuse_unk", false), place.Bool("byte_fallback", false), place.Bool("ignore_merges", false));
        return new BpeModel(tokens, ReadMerges(place["merges"], tokens), settings);
    }

    private static Dictionary<string, int> ReadVocabulary(JsonPlace place)
    {
        var tokens = new Dictionary<string, int>(StringComparer.Ordinal);
        var seen = new HashSet<int>();
        foreach ((string text, JsonPlace id) in place.Members())
        {
            int token = id.AsCount(MostId);
            if (text.Length == 0) throw id.Error("a token without text.");
            if (!seen.Add(token)) throw id.Error($"the id {token} is given twice.");
            tokens.Add(text, token);
        }
        if (tokens.Count == 0) throw place.Error("the vocabulary is empty.");
        return tokens;
    }

    private static PairTable ReadMerges(JsonPlace place, Dictionary<string, int> tokens)
    {
        JsonPlace[] items = place.Items();
        var merges = new PairTable(items.Length);
        for (int rank = 0; rank < items.Length; rank++)
        {
            JsonPlace item = items[rank];
            string[] pair = item.Element.ValueKind == JsonValueKind.String
                ? item.AsString().Split(' ')
                : [.. item.Items().Select(half => half.AsString())];
            if (pair.Length != 2) throw item.Error("a merge is two tokens, as one string with a space between them or as an array of two.");
            merges.Set(Token(pair[0]), Token(pair[1]), rank, Token(pair[0] + pair[1]));

            int Token(string text) => tokens.TryGetValue(text, out int token) ? token
                : throw item.Error($"the merge needs the token \"{text}\", which the vocabulary lacks.");
        }
        return merges;
    }

    private static AddedToken[] ReadAdded(JsonPlace place, BpeModel model)
    {
        var added = new List<AddedToken>();
        var idOfText = new Dictionary<string, int>(StringComparer.Ordinal);
        var textOfId = new Dictionary<int, string>();
        foreach (JsonPlace item in place.Items())
        {
            item.Only("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special");
            int id = item["id"].AsCount(MostId);
            string text = item["content"].AsString();
            if (text.Length == 0) throw item["content"].Error("an added token without text.");
            if (model.TryGet(text, out int known) && known != id)
                throw item["id"].Error($"\"{text}\" has the id {known} in the vocabulary, and {id} here.");
            if (id < model.Texts.Length && model.Texts[id] is { } other && other != text)
                throw item["id"].Error($"the id {id} is \"{other}\" in the vocabulary, and \"{text}\" here.");
            if (!idOfText.TryAdd(text, id)) throw item["content"].Error($"\"{text}\" is added twice.");
            if (!textOfId.TryAdd(id, text)) throw item["id"].Error($"the id {id} is given twice.");
            bool isSpecial = item.Bool("special", false);
            added.Add(new(id, text, item.Bool("single_word", false), item.Bool("lstrip", false), item.Bool("rstrip", false),
                item.Bool("normalized", !isSpecial), isSpecial));
        }
        return [.. added];
    }
}
