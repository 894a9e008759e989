using System.Globalization;
using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>Finds the parameters that an adapter's targets name.</summary>
internal static class LoraTargets
{
    private const string Weight = ".weight", Bias = ".bias";

    private static readonly string[] s_tables = ["embed_tokens", "embeddings", "embedding", "wte", "lm_head", "head"];

    /// <summary>A parameter's name less <c>.weight</c>, which is what PEFT calls its module.</summary>
    public static string Stem(string name) => name.EndsWith(Weight, StringComparison.Ordinal) ? name[..^Weight.Length] : name;

    /// <exception cref="ArgumentException">The shape has no change.</exception>
    public static LoraKind KindOf(Parameter parameter) => parameter.Shape.Length switch
    {
        1 => LoraKind.Vector,
        2 => LoraKind.Matrix,
        3 when parameter.Shape[1] == 1 => LoraKind.Kernel,
        _ => throw new ArgumentException($"LoraOptions.Targets: {parameter} is neither a vector nor a matrix nor the kernel [C, 1, K] of a convolution; leave it out."),
    };

    /// <exception cref="ArgumentException">A target names nothing.</exception>
    public static IEnumerable<Parameter> Find(LanguageModel model, IReadOnlyList<string>? targets)
    {
        if (targets is null)
        {
            Parameter[] matrices = [.. model.Parameters.Where(parameter => parameter.IsMatrix && !parameter.Name.Split('.').Any(s_tables.Contains))];
            return matrices.Length > 0 ? matrices : throw new ArgumentException($"LoraOptions.Targets: {model.GetType().Name} has no matrix beside embedding and head; {There(model)}");
        }
        foreach (string target in targets)
            if (!model.Parameters.Any(parameter => Matches(parameter.Name, target)))
                throw new ArgumentException($"LoraOptions.Targets: nothing in {model.GetType().Name} is named '{target}'; {There(model)}");
        return model.Parameters.Where(parameter => targets.Any(target => Matches(parameter.Name, target)));
    }

    /// <summary>Whether the target is a run of whole segments of the name. The bias of a layer must be named to its end.</summary>
    public static bool Matches(string name, string target)
    {
        for (int at = name.IndexOf(target, StringComparison.Ordinal); at >= 0; at = name.IndexOf(target, at + 1, StringComparison.Ordinal))
        {
            int end = at + target.Length;
            bool isWhole = (at == 0 || name[at - 1] == '.') && (end == name.Length || name[end] == '.');
            if (isWhole && (end == name.Length || !name.EndsWith(Bias, StringComparison.Ordinal))) return true;
        }
        return false;
    }

    private static string There(LanguageModel model)
    {
        var names = new SortedSet<string>(StringComparer.Ordinal);
        foreach (Parameter parameter in model.Parameters)
        {
            // The last segment that is no number, and two where the last is common to all layers.
            string[] segments = [.. Stem(parameter.Name).Split('.').Where(segment => !int.TryParse(segment, NumberStyles.None, CultureInfo.InvariantCulture, out _))];
            names.Add(segments[^1] == Bias[1..] && segments.Length > 1 ? $"{segments[^2]}.{segments[^1]}" : segments[^1]);
        }
        return $"there are {string.Join(", ", names)}.";
    }
}
