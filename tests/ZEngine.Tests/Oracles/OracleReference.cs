using System.Collections.Concurrent;
using System.Runtime.CompilerServices;

namespace ZEngine.Tests.Oracles;

/// <summary>What a device must reproduce for one case: golden values where the case has them, else the float64 oracle; and how far a plain implementation strays.</summary>
internal sealed class OracleReference
{
    /// <summary>
    /// With 16 further samples, none of 30 honest float32 runs of every golden case was refused; with 8, two tensors were; with 4, fifteen.
    /// Seldom is more than the first drawn.
    /// </summary>
    private const int DitheredRuns = 16;

    private static readonly ConditionalWeakTable<OpCase, ConcurrentDictionary<DType, Lazy<OracleReference>>> Made = [];

    private readonly OpCase _case;
    private readonly Dictionary<string, string> _letters;
    private readonly List<OracleRun> _rounded = [];

    private readonly DType _activations;

    public OracleReference(OpCase c, DType activations = DType.Float32)
    {
        _case = c;
        _activations = activations;
        _letters = Oracle.For(c.Op).Letters;
        Double = OracleRun.InDouble(c);
    }

    /// <summary>The reference of a case whose floats are rounded to a type of activations; all devices that the case runs on share it.</summary>
    public static OracleReference Of(OpCase c, DType activations) =>
        Made.GetOrCreateValue(c).GetOrAdd(activations, type => new(() => new(type == DType.BFloat16 ? c.Quantize(x => (float)(BFloat16)x) : c, type))).Value;

    public OpCase Case => _case;

    /// <summary>The float64 run.</summary>
    public OracleRun Double { get; }

    public OracleTensor<double> Output(string name) => Golden(_case.Outputs, name) ?? Double.Outputs[name];
    public OracleTensor<double> InputGradient(string name) => Golden(_case.InputGradients, name) ?? Double.InputGradients[name];

    /// <summary>Fails the test unless <paramref name="got"/> is close to that output.</summary>
    public void CheckOutput(string name, ReadOnlySpan<float> got, double epsilon = Close.Float32Epsilon) =>
        Close.Check($"{_case.Name}: {name}", _letters.GetValueOrDefault(name), got, Output(name), Rounded(run => run.Outputs[name]), epsilon, Double.Outputs[name]);

    /// <summary>Fails the test unless <paramref name="got"/> is close to the gradient of that input; the message calls it d + name.</summary>
    public void CheckInputGradient(string name, ReadOnlySpan<float> got, double epsilon = Close.Float32Epsilon) =>
        Close.Check($"{_case.Name}: d{char.ToUpperInvariant(name[0])}{name[1..]}", _letters.GetValueOrDefault(name), got, InputGradient(name),
            Rounded(run => run.InputGradients[name]), epsilon, Double.InputGradients[name]);

    /// <summary>The rounded runs one after the other, made when first asked for.</summary>
    public IEnumerable<OracleTensor<double>> Rounded(Func<OracleRun, OracleTensor<double>> tensor)
    {
        for (int i = 0; i <= DitheredRuns; i++) yield return tensor(Rounded(i));
    }

    /// <summary>Several threads may compare with one reference.</summary>
    private OracleRun Rounded(int i)
    {
        lock (_rounded)
        {
            if (i == _rounded.Count) _rounded.Add(i == 0 ? OracleRun.InFloat(_case, _activations) : OracleRun.Dithered(_case, (ulong)i, _activations));
            return _rounded[i];
        }
    }

    private static OracleTensor<double>? Golden(Dictionary<string, CaseTensor> tensors, string name) =>
        tensors.TryGetValue(name, out CaseTensor? tensor) ? tensor.Floats.Select(x => (double)x) : null;
}
