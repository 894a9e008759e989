using System.Text;
using System.Text.Json;

namespace ZEngine.Models;

/// <summary>Reads the normalizer, pre-tokenizer, post-processor and decoder sections.</summary>
internal static class PipelineReader
{
    /// <summary>The sections, in the order in which they are written.</summary>
    public static readonly string[] Sections = ["normalizer", "pre_tokenizer", "post_processor", "decoder"];

    private const int MostDepth = 8;
    private const int MostStrip = 1 << 20;

    /// <param name="root">The file.</param>
    /// <param name="size">The vocabulary size, which bounds the ids a post-processor may name.</param>
    public static Pipeline Read(JsonPlace root, int size)
    {
        Normalizer? normalizer = root.TryGetValue("normalizer", out JsonPlace place) ? ReadNormalizer(place, 0) : null;
        PreTokenizer? preTokenizer = root.TryGetValue("pre_tokenizer", out place) ? ReadPreTokenizer(place, 0) : null;
        (int[] prefix, int[] suffix) = root.TryGetValue("post_processor", out place) ? ReadPostProcessor(place, size, 0) : ([], []);
        var decoder = root.TryGetValue("decoder", out place) ? ReadDecoder(place, 0) : output => new JoinStage(output);
        var raw = Sections.ToDictionary(name => name, name => root.TryGet(name, out JsonPlace section) ? section.Raw : "null");
        return new(normalizer, preTokenizer, prefix, suffix, decoder, raw);
    }

    private static Normalizer ReadNormalizer(JsonPlace place, int depth)
    {
        string type = Type(place, depth);
        switch (type)
        {
            case "Sequence":
                return new SequenceNormalizer(
                    [.. place.Only("type", "normalizers")["normalizers"].Items().Select(item => ReadNormalizer(item, depth + 1))]);
            case "Prepend": return new PrependNormalizer(place.Only("type", "prepend")["prepend"].AsString());
            case "Replace":
                place.Only("type", "pattern", "content");
                return new ReplaceNormalizer(ReadPattern(place["pattern"]), place["content"].AsString());
            case "NFC": return Form(NormalizationForm.FormC);
            case "NFD": return Form(NormalizationForm.FormD);
            case "NFKC": return Form(NormalizationForm.FormKC);
            case "NFKD": return Form(NormalizationForm.FormKD);
            case "Lowercase":
                place.Only("type");
                return new LowercaseNormalizer();
            case "Strip":
                place.Only("type", "strip_left", "strip_right");
                return new StripNormalizer(place["strip_left"].AsBool(), place["strip_right"].AsBool());
            case "StripAccents":
                place.Only("type");
                return new StripAccentsNormalizer();
            case "ByteLevel":
                place.Only("type");
                return new ByteLevelNormalizer();
            default: throw place.Error($"the normalizer \"{type}\" is not supported.");
        }

        UnicodeFormNormalizer Form(NormalizationForm form)
        {
            place.Only("type");
            return new(form);
        }
    }

    private static PreTokenizer ReadPreTokenizer(JsonPlace place, int depth)
    {
        string type = Type(place, depth);
        switch (type)
        {
            case "Sequence":
                return new SequencePreTokenizer(
                    [.. place.Only("type", "pretokenizers")["pretokenizers"].Items().Select(item => ReadPreTokenizer(item, depth + 1))]);
            case "ByteLevel":
                CheckByteLevel(place);
                return new ByteLevelPreTokenizer(place.Bool("add_prefix_space", true), place.Bool("use_regex", true));
            case "Split":
                place.Only("type", "pattern", "behavior", "invert");
                return new SplitPreTokenizer(ReadPattern(place["pattern"]), ReadBehavior(place["behavior"]), place.Bool("invert", false));
            case "Metaspace": return ReadMetaspace(place, (replacement, scheme, splits) => new MetaspacePreTokenizer(replacement, scheme, splits));
            case "Digits":
                place.Only("type", "individual_digits");
                return new SplitPreTokenizer(new CharPattern(UnicodeText.IsNumeric),
                    place.Bool("individual_digits", false) ? SplitBehavior.Isolated : SplitBehavior.Contiguous, isInverted: false);
            case "Whitespace":
                place.Only("type");
                return new SplitPreTokenizer(new WordPattern(), SplitBehavior.Removed, isInverted: true);
            case "WhitespaceSplit":
                place.Only("type");
                return new SplitPreTokenizer(new CharPattern(Rune.IsWhiteSpace), SplitBehavior.Removed, isInverted: false);
            case "Punctuation":
                place.Only("type", "behavior");
                return new SplitPreTokenizer(new CharPattern(UnicodeText.IsPunctuation),
                    place.TryGetValue("behavior", out JsonPlace behavior) ? ReadBehavior(behavior) : SplitBehavior.Isolated, isInverted: false);
            default: throw place.Error($"the pre-tokenizer \"{type}\" is not supported.");
        }
    }

    private static (int[] Prefix, int[] Suffix) ReadPostProcessor(JsonPlace place, int size, int depth)
    {
        string type = Type(place, depth);
        switch (type)
        {
            case "Sequence":
                (int[] prefix, int[] suffix) = ([], []);
                foreach (JsonPlace item in place.Only("type", "processors")["processors"].Items())
                {
                    (int[] before, int[] after) = ReadPostProcessor(item, size, depth + 1);
                    (prefix, suffix) = ([.. before, .. prefix], [.. suffix, .. after]);
                }
                return (prefix, suffix);
            case "ByteLevel":
                CheckByteLevel(place);                          // moves offsets, not tokens
                return ([], []);
            case "TemplateProcessing": return ReadTemplate(place, size);
            default: throw place.Error($"the post-processor \"{type}\" is not supported.");
        }
    }

    private static (int[] Prefix, int[] Suffix) ReadTemplate(JsonPlace place, int size)
    {
        place.Only("type", "single", "pair", "special_tokens");
        var special = new Dictionary<string, int[]>(StringComparer.Ordinal);
        foreach ((string name, JsonPlace token) in place["special_tokens"].Members())
            special.Add(name, [.. token.Only("id", "ids", "tokens")["ids"].Items().Select(id => id.AsCount(size - 1))]);

        List<int> prefix = [], suffix = [];
        bool hasText = false;
        foreach (JsonPlace part in place["single"].Items())
        {
            part.Only("SpecialToken", "Sequence");
            if (part.TryGet("Sequence", out JsonPlace sequence))
            {
                if (sequence["id"].AsString() != "A" || hasText) throw sequence.Error("a template holds sequence A once.");
                hasText = true;
                continue;
            }
            JsonPlace id = part["SpecialToken"]["id"];
            if (!special.TryGetValue(id.AsString(), out int[]? ids)) throw id.Error($"special_tokens has no \"{id.AsString()}\".");
            (hasText ? suffix : prefix).AddRange(ids);
        }
        if (!hasText) throw place["single"].Error("the template lacks sequence A.");
        return ([.. prefix], [.. suffix]);
    }

    private static Func<DecoderStage, DecoderStage> ReadDecoder(JsonPlace place, int depth)
    {
        string type = Type(place, depth);
        switch (type)
        {
            case "Sequence":
                var steps = place.Only("type", "decoders")["decoders"].Items().Select(item => ReadDecoder(item, depth + 1)).Reverse().ToArray();
                return output => steps.Aggregate(output, (next, step) => step(next));
            case "ByteLevel":
                CheckByteLevel(place);
                return output => new ByteLevelStage(output);
            case "ByteFallback":
                place.Only("type");
                return output => new ByteFallbackStage(output);
            case "Fuse":
                place.Only("type");
                return output => new FuseStage(output);
            case "Metaspace":
                return ReadMetaspace<Func<DecoderStage, DecoderStage>>(place,
                    (replacement, scheme, _) => output => new MetaspaceStage(replacement, scheme != PrependScheme.Never, output));
            case "Strip":
                place.Only("type", "content", "start", "stop");
                char stripped = place["content"].AsChar();
                int start = place["start"].AsCount(MostStrip), stop = place["stop"].AsCount(MostStrip);
                return output => new StripStage(stripped, start, stop, output);
            case "Replace":
                place.Only("type", "pattern", "content");
                string content = place["content"].AsString();
                if (place["pattern"].TryGet("String", out JsonPlace literal) && literal.AsString() is { Length: 1 } text)
                    return output => new ReplaceCharStage(text[0], content, output);
                SplitPattern pattern = ReadPattern(place["pattern"]);
                return output => new ReplaceStage(pattern, content, output);
            default: throw place.Error($"the decoder \"{type}\" is not supported.");
        }
    }

    private static T ReadMetaspace<T>(JsonPlace place, Func<char, PrependScheme, bool, T> make)
    {
        place.Only("type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep");
        PrependScheme scheme = PrependScheme.Always;
        bool hasScheme = place.TryGetValue("prepend_scheme", out JsonPlace schemePlace);
        if (hasScheme)
            scheme = schemePlace.AsString() switch
            {
                "always" => PrependScheme.Always,
                "first" => PrependScheme.First,
                "never" => PrependScheme.Never,
                string other => throw schemePlace.Error($"the prepend scheme \"{other}\" is not supported."),
            };
        // Files from before the schemes say it with a bool.
        if (!place.Bool("add_prefix_space", true))
        {
            if (hasScheme && scheme != PrependScheme.Never) throw place["add_prefix_space"].Error("contradicts prepend_scheme.");
            scheme = PrependScheme.Never;
        }
        return make(place["replacement"].AsChar(), scheme, place.Bool("split", true));
    }

    private static SplitPattern ReadPattern(JsonPlace place)
    {
        place.Only("String", "Regex");
        if (place.TryGet("String", out JsonPlace literal))
        {
            if (place.TryGet("Regex", out _)) throw place.Error("a pattern is a String or a Regex, not both.");
            string text = literal.AsString();
            return text.Length > 0 ? new LiteralPattern(text) : throw literal.Error("an empty pattern.");
        }
        JsonPlace regex = place["Regex"];
        try
        {
            return SplitPattern.FromRegex(regex.AsString());
        }
        catch (FormatException e)
        {
            throw regex.Error($"this regular expression is not supported: {e.Message}");
        }
    }

    private static SplitBehavior ReadBehavior(JsonPlace place) => place.AsString() switch
    {
        "Removed" => SplitBehavior.Removed,
        "Isolated" => SplitBehavior.Isolated,
        "MergedWithPrevious" => SplitBehavior.MergedWithPrevious,
        "MergedWithNext" => SplitBehavior.MergedWithNext,
        "Contiguous" => SplitBehavior.Contiguous,
        string other => throw place.Error($"the split behavior \"{other}\" is not supported."),
    };

    private static void CheckByteLevel(JsonPlace place)
    {
        place.Only("type", "add_prefix_space", "trim_offsets", "use_regex");
        foreach (string name in (string[])["add_prefix_space", "trim_offsets", "use_regex"]) place.Bool(name, true);
    }

    private static string Type(JsonPlace place, int depth)
    {
        if (depth > MostDepth) throw place.Error($"sequences nest more than {MostDepth} deep.");
        return place.Expect(JsonValueKind.Object)["type"].AsString();
    }
}
