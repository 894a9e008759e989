using System.Text.Json;

namespace ZEngine.Tests.Oracles;

/// <summary>Makes a random case of an op, the same on every machine: named inputs, attributes, and gradients for the outputs.</summary>
/// <example><code>
/// OpCase c = new CaseBuilder("ssd", "L is no multiple of Q", seed: 3).With("softplus", true)
///     .Normal("x", [1, 37, 4, 8]).ExtremeDt("dt", [1, 37, 4]).Decay("A", [4]).Normal("B", [1, 37, 1, 8]).Normal("C", [1, 37, 1, 8]).Build();
/// </code></example>
internal sealed class CaseBuilder(string op, string reason, int seed)
{
    private readonly Dictionary<string, CaseTensor> _inputs = [];
    private readonly Dictionary<string, object?> _attrs = [];
    private readonly Noise _noise = new((ulong)seed);

    public CaseBuilder With(string attribute, object? value)
    {
        _attrs[attribute] = value;
        return this;
    }

    /// <summary>Normal with mean 0 and the given deviation.</summary>
    public CaseBuilder Normal(string name, int[] shape, double deviation = 1) => Fill(name, shape, () => deviation * _noise.Normal());

    public CaseBuilder Uniform(string name, int[] shape, double low, double high) => Fill(name, shape, () => low + (high - low) * _noise.Uniform());

    /// <summary>Whole numbers from <paramref name="low"/> to <paramref name="high"/>, inclusive, as floats: their products and sums are exact.</summary>
    public CaseBuilder Whole(string name, int[] shape, int low, int high) => Fill(name, shape, () => low + Math.Floor((high - low + 1) * _noise.Uniform()));

    /// <summary>A = −exp(uniform): decay rates from −1 to −16, as Mamba initialises them.</summary>
    public CaseBuilder Decay(string name, int[] shape) => Fill(name, shape, () => -Math.Exp(Math.Log(16) * _noise.Uniform()));

    /// <summary>Mostly normal; every fourth so large that exp(Δ·A) underflows, or so small that Δ does.</summary>
    public CaseBuilder ExtremeDt(string name, int[] shape) =>
        Fill(name, shape, () => _noise.Uniform() switch { < 0.125 => 20 + 70 * _noise.Uniform(), < 0.25 => -20 - 90 * _noise.Uniform(), _ => _noise.Normal() });

    public CaseBuilder Constant(string name, int[] shape, double value) => Fill(name, shape, () => value);

    /// <summary>Integers from 0 to <paramref name="limit"/>, exclusive.</summary>
    public CaseBuilder Integers(string name, int[] shape, int limit) =>
        Integers(name, shape, [.. Enumerable.Range(0, Shapes.Count(shape)).Select(_ => (long)(limit * _noise.Uniform()))]);

    public CaseBuilder Integers(string name, int[] shape, long[] values)
    {
        _inputs[name] = new(values, shape);
        return this;
    }

    /// <summary>
    /// The case, with normal gradients into the named outputs: by default all that the op differentiates; ["none"] stands for no gradients at all.
    /// </summary>
    public OpCase Build(params string[] gradients)
    {
        OpCase forward = Case([]);
        string[] wanted = gradients is ["none"] ? [] : gradients.Length > 0 ? gradients : Oracle.For(op).Differentiable;
        if (wanted.Length == 0) return forward;
        Dictionary<string, OracleTensor<double>> outputs = OracleRun.InDouble(forward).Outputs;
        return Case(wanted.ToDictionary(name => name, name => Tensor(outputs[name].Shape, _noise.Normal)));
    }

    private OpCase Case(Dictionary<string, CaseTensor> gradients) => new()
    {
        Name = $"{op} ({reason})", Op = op, Attrs = JsonSerializer.SerializeToElement(_attrs), Inputs = _inputs, OutputGradients = gradients,
    };

    private CaseBuilder Fill(string name, int[] shape, Func<double> next)
    {
        _inputs[name] = Tensor(shape, next);
        return this;
    }

    private static CaseTensor Tensor(int[] shape, Func<double> next)
    {
        var values = new float[Shapes.Count(shape)];
        for (int i = 0; i < values.Length; i++) values[i] = (float)next();
        return new(values, shape);
    }
}
