namespace ZEngine.Tests.Oracles;

/// <summary>What one arithmetic makes of a case: every output, and the gradient of every float input with all output gradients sent at once.</summary>
internal sealed class OracleRun
{
    public Dictionary<string, OracleTensor<double>> Outputs { get; } = [];
    public Dictionary<string, OracleTensor<double>> InputGradients { get; } = [];

    /// <summary>float64: the reference.</summary>
    public static OracleRun InDouble(OpCase c) => Run<Real>(c);

    /// <summary>A plain implementation with activations of a type: float32, rounded to nearest after every step of the value and of the gradient.</summary>
    public static OracleRun InFloat(OpCase c, DType activations = DType.Float32) => activations == DType.BFloat16 ? Run<BFloat<Rounded>>(c, true) : Run<Rounded>(c);

    /// <summary>As <see cref="InFloat"/>, rounded at random after every step: one more sample of the rounding error per seed.</summary>
    public static OracleRun Dithered(OpCase c, ulong seed, DType activations = DType.Float32)
    {
        Oracles.Dithered.Seed(seed);
        return activations == DType.BFloat16 ? Run<BFloat<Dithered>>(c, true) : Run<Dithered>(c);
    }

    private static OracleRun Run<T>(OpCase c, bool isPlain = false) where T : struct, IReal<T>
    {
        Dictionary<string, OracleTensor<V>> Apply<V>(OracleInputs<V> x) where V : struct, IReal<V> => isPlain ? Oracle.For(c.Op).Plain(x, c.Attrs) : Oracle.For(c.Op).Run(x, c.Attrs);
        var run = new OracleRun();
        Dictionary<string, OracleTensor<long>> integers = c.Inputs
            .Where(entry => entry.Value.IsInteger)
            .ToDictionary(entry => entry.Key, entry => entry.Value.Integers);
        Dictionary<string, OracleTensor<float>> floats = c.Inputs
            .Where(entry => !entry.Value.IsInteger)
            .ToDictionary(entry => entry.Key, entry => entry.Value.Floats);

        if (c.OutputGradients.Count == 0)
        {
            var plain = new OracleInputs<T>(floats.ToDictionary(entry => entry.Key, entry => entry.Value.Select(x => (T)(double)x)), integers);
            foreach ((string name, OracleTensor<T> output) in Apply(plain)) run.Outputs[name] = output.Select(x => x.ToDouble());
            return run;
        }

        Trace<T> trace = Trace<T>.Current;
        trace.Reset();
        Dictionary<string, OracleTensor<Var<T>>> inputs = floats.ToDictionary(entry => entry.Key, entry => entry.Value.Select(x => Var<T>.Input((double)x)));
        Dictionary<string, OracleTensor<Var<T>>> outputs = Apply(new OracleInputs<Var<T>>(inputs, integers));
        var seeds = new List<(Var<T>, T)>();
        foreach ((string name, CaseTensor gradient) in c.OutputGradients)
        {
            if (!outputs[name].Shape.AsSpan().SequenceEqual(gradient.Shape))
                throw new ArgumentException($"{c.Name}: output {name} is {Shapes.Text(outputs[name].Shape)}, its gradient {Shapes.Text(gradient.Shape)}.");
            for (int i = 0; i < gradient.Floats.Count; i++) seeds.Add((outputs[name][i], (double)gradient.Floats[i]));
        }
        T[] g = trace.Gradients(seeds);
        foreach ((string name, OracleTensor<Var<T>> output) in outputs) run.Outputs[name] = output.Select(x => x.ToDouble());
        foreach ((string name, OracleTensor<Var<T>> input) in inputs) run.InputGradients[name] = input.Select(x => g[x.Node].ToDouble());
        trace.Reset();
        return run;
    }
}
