namespace ZEngine.Tests.Oracles;

/// <summary>What one arithmetic makes of a case: every output, and the gradient of every float input with all output gradients sent at once.</summary>
internal sealed class OracleRun
{
    public Dictionary<string, OracleTensor<double>> Outputs { get; } = [];
    public Dictionary<string, OracleTensor<double>> InputGradients { get; } = [];

    /// <summary>float64: the reference.</summary>
    public static OracleRun InDouble(OpCase c) => Run<Real>(c);

    /// <summary>float32, rounded to nearest after every step of the value and of the gradient.</summary>
    public static OracleRun InFloat(OpCase c) => Run<Rounded>(c);

    /// <summary>float32, rounded at random after every step: one more sample of the rounding error per seed.</summary>
    public static OracleRun Dithered(OpCase c, ulong seed)
    {
        Oracles.Dithered.Seed(seed);
        return Run<Dithered>(c);
    }

    private static OracleRun Run<T>(OpCase c) where T : struct, IReal<T>
    {
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
            foreach ((string name, OracleTensor<T> output) in Oracle.For(c.Op).Run(plain, c.Attrs)) run.Outputs[name] = output.Select(x => x.ToDouble());
            return run;
        }

        Trace<T> trace = Trace<T>.Current;
        trace.Reset();
        Dictionary<string, OracleTensor<Var<T>>> inputs = floats.ToDictionary(entry => entry.Key, entry => entry.Value.Select(x => Var<T>.Input((double)x)));
        Dictionary<string, OracleTensor<Var<T>>> outputs = Oracle.For(c.Op).Run(new OracleInputs<Var<T>>(inputs, integers), c.Attrs);
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
