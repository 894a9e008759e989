using Xunit;

namespace ZEngine.Tests.Oracles;

/// <summary>Differentiation against finite differences: of every function by itself, and of every op as a whole.</summary>
public sealed class VarTests
{
    private static readonly Dictionary<string, Func<Var<Real>, Var<Real>>> s_functions = new()
    {
        ["exp"] = Var<Real>.Exp, ["expm1"] = Var<Real>.Expm1, ["log"] = Var<Real>.Log, ["log1p"] = Var<Real>.Log1p, ["sqrt"] = Var<Real>.Sqrt,
        ["tanh"] = Var<Real>.Tanh, ["erf"] = Var<Real>.Erf, ["sin"] = Var<Real>.Sin, ["cos"] = Var<Real>.Cos, ["abs"] = Var<Real>.Abs,
        ["pow"] = x => Var<Real>.Pow(x, 2.5), ["negate"] = x => -x, ["quotient"] = x => (2.0 - x) / (x * x + 1.0), ["self"] = x => x * x * x - x,
    };

    public static TheoryData<string> FunctionNames => [.. s_functions.Keys];
    public static TheoryData<string> CaseNames => [.. Cases.All().Select(c => c.Name)];

    [Theory, MemberData(nameof(FunctionNames))]
    public void Slope_equals_finite_difference(string name)
    {
        foreach (double at in new[] { 0.03, 0.4, 1.3, 2.9 })
        {
            Trace<Real>.Current.Reset();
            Var<Real> x = Var<Real>.Input(at), y = s_functions[name](x);
            double slope = Trace<Real>.Current.Gradients([(y, 1.0)])[x.Node].ToDouble();
            double F(double value) => s_functions[name](value).ToDouble();
            double h = 1e-3 * at, difference = (8 * (F(at + h) - F(at - h)) - (F(at + 2 * h) - F(at - 2 * h))) / (12 * h);
            Assert.Equal(difference, slope, 1e-8 * (1 + Math.Abs(slope)));
        }
    }

    /// <summary>Along a random direction v of each input: (loss(x + εv) − loss(x − εv)) / 2ε = dx·v, with loss = Σ output·output gradient.</summary>
    [Theory, MemberData(nameof(CaseNames))]
    public void Gradient_of_op_equals_finite_difference(string name)
    {
        OpCase c = Cases.All().First(c => c.Name == name);
        OracleRun run = OracleRun.InDouble(c);
        var noise = new Noise(23);
        foreach ((string input, OracleTensor<double> gradient) in run.InputGradients)
        {
            double[] direction = [.. gradient.Data.Select(_ => noise.Normal())];
            const double h = 1e-5;
            double difference = (Loss(c, input, direction, h) - Loss(c, input, direction, -h)) / (2 * h);
            double slope = gradient.Data.Zip(direction, (g, v) => g * v).Sum();
            double size = gradient.Data.Zip(direction, (g, v) => Math.Abs(g * v)).Sum();
            Assert.True(Math.Abs(difference - slope) <= 1e-7 * size + 1e-8, $"{name}: d {input} along v is {slope:G9}, by difference {difference:G9}");
        }
    }

    private static double Loss(OpCase c, string moved, double[] direction, double distance)
    {
        Dictionary<string, OracleTensor<Real>> numbers = c.Inputs
            .Where(x => !x.Value.IsInteger)
            .ToDictionary(x => x.Key, x => x.Value.Floats.Select(v => (Real)(double)v));
        for (int i = 0; i < direction.Length; i++) numbers[moved][i] += distance * direction[i];
        var integers = c.Inputs.Where(x => x.Value.IsInteger).ToDictionary(x => x.Key, x => x.Value.Integers);
        Dictionary<string, OracleTensor<Real>> outputs = Oracle.For(c.Op).Run(new OracleInputs<Real>(numbers, integers), c.Attrs);
        double loss = 0;
        foreach ((string name, CaseTensor gradient) in c.OutputGradients)
            for (int i = 0; i < gradient.Floats.Count; i++)
                if (double.IsFinite(outputs[name][i].Value)) loss += outputs[name][i].Value * gradient.Floats[i];
        return loss;
    }

    [Fact]
    public void Constants_make_no_nodes()
    {
        Trace<Real> trace = Trace<Real>.Current;
        trace.Reset();
        int before = trace.Count;
        Var<Real> constant = Var<Real>.Exp((Var<Real>)2.0 * 3.0) + default(Var<Real>);
        Assert.Equal(0, constant.Node);
        Assert.Equal(before, trace.Count);
        Var<Real> sum = constant + Var<Real>.Input(1.0);
        Assert.Equal(before + 2, trace.Count);
        Assert.Equal(1.0, trace.Gradients([(sum, 1.0)])[sum.Node - 1].ToDouble());
    }

    [Fact]
    public void Trace_of_many_blocks_is_exact_and_reusable()
    {
        Trace<Real> trace = Trace<Real>.Current;
        for (int round = 0; round < 2; round++)
        {
            trace.Reset();
            Var<Real> x = Var<Real>.Input(1.0), sum = 0.0;
            for (int i = 0; i < 1_000_000; i++) sum += x * 2.0;
            Assert.Equal(2e6, trace.Gradients([(sum, 1.0)])[x.Node].ToDouble());
        }
        trace.Reset();
    }

    [Fact]
    public void Rounded_equals_float_arithmetic()
    {
        Rounded a = 0.1, b = 0.7;
        Assert.Equal(0.1f + 0.7f, (a + b).Value);
        Assert.Equal(0.1f * 0.7f / (0.1f - 0.7f), (a * b / (a - b)).Value);
        Assert.Equal((float)Math.Exp(0.1f), Rounded.Exp(a).Value);
    }

    /// <summary>The mean of many stochastic roundings is the exact value, and what a float can hold is kept.</summary>
    [Fact]
    public void Dithered_is_fair()
    {
        Dithered.Seed(1);
        Dithered third = 1.0, three = 3.0;
        double mean = Enumerable.Range(0, 10_000).Average(_ => (third / three).ToDouble());
        Assert.Equal(1.0 / 3, mean, 1e-9);
        Assert.All(Enumerable.Range(0, 100), _ => Assert.Equal(-0.75f, (-(three / 4.0)).Value));
        Dithered minusThird = -1.0 / 3;
        Assert.Equal(-1.0 / 3, Enumerable.Range(0, 10_000).Average(_ => Dithered.ToBFloat16(minusThird).ToDouble()), 4e-5);
        Assert.Equal([-171f / 512, -170f / 512], Enumerable.Range(0, 100).Select(_ => Dithered.ToBFloat16(minusThird).Value).Distinct().Order());
        Assert.All(Enumerable.Range(0, 100), _ => Assert.Equal(-0.75f, Dithered.ToBFloat16(-(three / 4.0)).Value));
    }

    [Theory]
    [InlineData(0.5, 0.52049987781304653768), InlineData(1.0, 0.84270079294971486934), InlineData(2.4, 0.99931148610335492143)]
    [InlineData(2.6, 0.99976396558347065080), InlineData(-3.0, -0.99997790950300141456), InlineData(7.0, 1.0), InlineData(1e-9, 1.1283791670955126e-9)]
    public void Erf_equals_table(double x, double erf) => Assert.Equal(erf, Functions.Erf(x), 2e-16 * Math.Max(1, Math.Abs(erf)));

    [Fact]
    public void Log1p_and_expm1_keep_small_arguments()
    {
        Assert.Equal(1e-12 - 5e-25, Functions.Log1p(1e-12), 1e-27);
        Assert.Equal(1e-12 + 5e-25, Functions.Expm1(1e-12), 1e-27);
        Assert.Equal(Math.Log(3), Functions.Log1p(2), 1e-15);
        Assert.Equal(Math.Exp(0.3) - 1, Functions.Expm1(0.3), 1e-15);
    }
}
