using System.Text.Json;
using ZEngine.Tests.Oracles.Ops;

namespace ZEngine.Tests.Oracles;

/// <summary>An op's definition as plain loops over any <see cref="IReal{T}"/>, with the tensor names of the golden cases.</summary>
internal abstract class Oracle
{
    public abstract Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> x, JsonElement attrs) where T : struct, IReal<T>;

    /// <summary>Dimension letters by tensor name, for messages: "B L D".</summary>
    public abstract Dictionary<string, string> Letters { get; }

    /// <summary>The outputs that a gradient may come back through, unless a case says otherwise.</summary>
    public virtual string[] Differentiable => ["y"];

    /// <summary>The oracle of an op, by its name in the golden cases.</summary>
    public static Oracle For(string op) => op switch
    {
        "matmul" => new MatmulOracle(),
        "elementwise" or "activation" => new ElementwiseOracle(),
        "reduce" => new ReduceOracle(),
        "embedding" => new EmbeddingOracle(),
        "rms_norm" => new RmsNormOracle(),
        "layer_norm" => new LayerNormOracle(),
        "causal_conv1d" => new CausalConv1dOracle(),
        "selective_scan" => new SelectiveScanOracle(),
        "ssd" => new SsdScanOracle(),
        "attention" => new AttentionOracle(),
        "tree_attention" => new TreeAttentionOracle(),
        "rope" => new RopeOracle(),
        "gated_mlp_activation" => new GatedActivationOracle(),
        "cross_entropy" => new CrossEntropyOracle(),
        "moe_swiglu" => new MoeOracle(),
        "adamw" => new AdamWOracle(),
        _ => throw new ArgumentException($"No oracle for op '{op}'."),
    };
}

/// <summary>The named inputs of one run: numbers of type T, and integers (targets, token ids, positions).</summary>
internal sealed class OracleInputs<T>(Dictionary<string, OracleTensor<T>> numbers, Dictionary<string, OracleTensor<long>> integers)
{
    public OracleTensor<T> this[string name] =>
        numbers.TryGetValue(name, out OracleTensor<T>? x) ? x : throw new KeyNotFoundException($"The case has no input '{name}'.");

    public OracleTensor<T>? Optional(string name) => numbers.GetValueOrDefault(name);

    public OracleTensor<long> Integers(string name) =>
        integers.TryGetValue(name, out OracleTensor<long>? x) ? x : throw new KeyNotFoundException($"The case has no integer input '{name}'.");

    public OracleTensor<long>? OptionalIntegers(string name) => integers.GetValueOrDefault(name);
}

/// <summary>Reads of a case's attributes; an absent one and a null one are the same.</summary>
internal static class Attributes
{
    private static JsonElement? Find(JsonElement attrs, string name) =>
        attrs.ValueKind == JsonValueKind.Object && attrs.TryGetProperty(name, out JsonElement value) && value.ValueKind != JsonValueKind.Null ? value : null;

    public static bool Flag(this JsonElement attrs, string name) => Find(attrs, name)?.GetBoolean() ?? false;
    public static int? Int(this JsonElement attrs, string name) => Find(attrs, name)?.GetInt32();
    public static double? Number(this JsonElement attrs, string name) => Find(attrs, name)?.GetDouble();
    public static string? Text(this JsonElement attrs, string name) => Find(attrs, name)?.GetString();
    public static int[]? Ints(this JsonElement attrs, string name) => Find(attrs, name)?.EnumerateArray().Select(x => x.GetInt32()).ToArray();

    /// <summary>A list of numbers in which null means "none".</summary>
    public static double?[]? Numbers(this JsonElement attrs, string name) =>
        Find(attrs, name)?.EnumerateArray().Select(x => x.ValueKind == JsonValueKind.Null ? (double?)null : x.GetDouble()).ToArray();
}

/// <summary>One sequence: steps Start to End (exclusive) of batch row Row, the Index-th of all.</summary>
internal readonly record struct Sequence(int Index, int Row, int Start, int End)
{
    public int Length => End - Start;

    /// <summary>The rows of a batch, or the sequences that cu_seqlens packs into a batch of one.</summary>
    public static Sequence[] All(JsonElement attrs, int batch, int length, string name = "cu_seqlens")
    {
        if (attrs.Ints(name) is not { } ends) return [.. Enumerable.Range(0, batch).Select(b => new Sequence(b, b, 0, length))];
        if (batch != 1 || ends[0] != 0 || ends[^1] != length) throw new ArgumentException($"{name} must pack one row from 0 to {length}.");
        return [.. Enumerable.Range(0, ends.Length - 1).Select(i => new Sequence(i, 0, ends[i], ends[i + 1]))];
    }

    /// <summary>The state this sequence starts from: its own when there is one each, else the single one belongs to the first; −1 is zero.</summary>
    public int StateOf<T>(OracleTensor<T>? states, int sequences) =>
        states is null ? -1 : states.Shape[0] == sequences ? Index : Index == 0 ? 0 : -1;
}
