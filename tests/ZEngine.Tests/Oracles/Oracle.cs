using System.Text.Json;
using ZEngine.Tests.Oracles.Ops;

namespace ZEngine.Tests.Oracles;

/// <summary>An op's definition as plain loops over any <see cref="IReal{T}"/>, with the tensor names of the golden cases.</summary>
internal abstract class Oracle
{
    public abstract Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> x, JsonElement attrs) where T : struct, IReal<T>;

    /// <summary>
    /// The same result as a plain implementation makes it with tensors of activations in between, each marked by <see cref="IReal{T}.Store"/>: the
    /// yardstick of what 16-bit activations may lose. Where an implementation keeps none, it is <see cref="Run"/>.
    /// </summary>
    public virtual Dictionary<string, OracleTensor<T>> Plain<T>(OracleInputs<T> x, JsonElement attrs) where T : struct, IReal<T> => Run(x, attrs);

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
