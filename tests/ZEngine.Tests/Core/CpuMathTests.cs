using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Core;

/// <summary>The largest error of each function in units of the last place of the right answer, over dense sweeps of floats.</summary>
/// <remarks>
/// x·Φ(x) and its kin lose one unit per unit of x² on the left, where the value itself goes down like e^(-x²/2): rounding x² in the
/// exponent does that, and the bound says so by its range.
/// </remarks>
public sealed class CpuMathTests
{
    [Theory]
    [InlineData(Pointwise.Exp, -87f, 88.7f, 2.0)]
    [InlineData(Pointwise.Exp, -103.9f, -87f, 1.5)]            // denormal results
    [InlineData(Pointwise.Log, 1e-45f, 3.4e38f, 2.0)]
    [InlineData(Pointwise.Log, 0.5f, 2f, 2.0)]
    [InlineData(Pointwise.Softplus, -103f, 103f, 3.0)]
    [InlineData(Pointwise.Sigmoid, -87f, 87f, 3.0)]
    [InlineData(Pointwise.Tanh, -12f, 12f, 3.0)]
    [InlineData(Pointwise.Silu, -87f, 87f, 3.5)]
    [InlineData(Pointwise.Gelu, -1f, 20f, 7.0)]
    [InlineData(Pointwise.Gelu, -5f, -1f, 32)]
    [InlineData(Pointwise.GeluTanh, -1f, 20f, 6.0)]
    [InlineData(Pointwise.GeluTanh, -5f, -1f, 40)]
    [InlineData(Pointwise.Sqrt, 1e-38f, 3e38f, 0.5)]
    [InlineData(Pointwise.Rsqrt, 1e-38f, 3e38f, 1.5)]
    [InlineData(Pointwise.Reciprocal, 1e-38f, 1e37f, 0.5)]
    public void Error_stays_within_units_of_the_last_place(Pointwise function, float low, float high, double bound)
    {
        using TensorScope scope = TensorScope.Enter();
        float[] inputs = Sweep(low, high, 400_000);
        float[] outputs = ZEngine.Ops.Map(function, Tensor.From<float>(inputs, [inputs.Length], Device.Cpu)).ToArray<float>();
        (double worst, float at) = (0, 0);
        for (int i = 0; i < inputs.Length; i++)
        {
            double want = Exact(function, inputs[i]), error = Math.Abs(outputs[i] - want) / UnitOfLastPlace(want);
            if (!(error <= worst)) (worst, at) = (error, inputs[i]);
        }
        Assert.True(worst <= bound, $"{function}({at:R}) is {worst:F2} units off");
        Assert.True(worst > bound / 8, $"{function} on {low}..{high} is only {worst:F3} units off: the bound {bound} is too wide");
    }

    /// <summary>Registers of every width scale alike, rounded once where the result has no room for all bits.</summary>
    [Fact]
    public void Scaling_by_a_power_of_two_rounds_once()
    {
        foreach (float a in (ReadOnlySpan<float>)[1f, -1.4142135f, 0.70710677f, 1.9999999f, 0f, float.NaN, float.PositiveInfinity])
        for (int n = -252; n <= 254; n++)
        {
            float want = (float)(a * Math.ScaleB(1.0, n));
            Assert.Equal([want, want, want], [Lane<Floats4>(a, n), Lane<Floats8>(a, n), Lane<Floats16>(a, n)]);
        }
    }

    private static unsafe float Lane<T>(float a, float n) where T : struct, IFloats<T>
    {
        float* lanes = stackalloc float[16];
        T.Scale(T.Broadcast(a), T.Broadcast(n)).Store(lanes);
        for (int i = 1; i < T.Width; i++) Assert.Equal(lanes[0], lanes[i]);
        return lanes[0];
    }

    /// <summary>About as many floats as asked for, evenly spaced in their order, both ends included.</summary>
    private static float[] Sweep(float low, float high, int count)
    {
        (int from, int to) = (Ordinal(low), Ordinal(high));
        double step = Math.Max(1, ((double)to - from) / count);
        var values = new List<float>();
        for (double at = from; at < to; at += step) values.Add(FromOrdinal((int)at));
        values.Add(high);
        // Evenly in value too: the order of floats is crowded around zero.
        for (int i = 1; i < count; i++) values.Add((float)(low + ((double)high - low) * i / count));
        return [.. values];
    }

    private static int Ordinal(float value)
    {
        int bits = BitConverter.SingleToInt32Bits(value);
        return bits >= 0 ? bits : int.MinValue - bits;
    }

    private static float FromOrdinal(int ordinal) => BitConverter.Int32BitsToSingle(ordinal >= 0 ? ordinal : int.MinValue - ordinal);

    private static double UnitOfLastPlace(double value)
    {
        value = Math.Abs(value);
        return value < 1.1754943508222875e-38 ? Math.ScaleB(1, -149) : Math.ScaleB(1, Math.ILogB(value) - 23);
    }

    private static double Exact(Pointwise function, double x) => function switch
    {
        Pointwise.Exp => Math.Exp(x),
        Pointwise.Log => Math.Log(x),
        Pointwise.Softplus => Math.Max(x, 0) + Functions.Log1p(Math.Exp(-Math.Abs(x))),
        Pointwise.Sigmoid => 1 / (1 + Math.Exp(-x)),
        Pointwise.Tanh => Math.Tanh(x),
        Pointwise.Silu => x / (1 + Math.Exp(-x)),
        Pointwise.Gelu => x * 0.5 * Erfc(-x * Math.Sqrt(0.5)),
        Pointwise.GeluTanh => x / (1 + Math.Exp(-2 * Math.Sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))),
        Pointwise.Sqrt => Math.Sqrt(x),
        Pointwise.Rsqrt => 1 / Math.Sqrt(x),
        _ => 1 / x,
    };

    /// <summary>1 - erf(t), by the continued fraction of Lentz where the difference would cancel.</summary>
    private static double Erfc(double t)
    {
        if (t < 1) return 1 - Functions.Erf(t);
        double fraction = 0;
        for (int k = 200; k >= 1; k--) fraction = k / 2.0 / (t + fraction);
        return Math.Exp(-t * t) / Math.Sqrt(Math.PI) / (t + fraction);
    }
}
