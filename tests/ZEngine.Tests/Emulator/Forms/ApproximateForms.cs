using ZEngine.Emulator;
using static ZEngine.Tests.Emulator.Forms.Definition;

namespace ZEngine.Tests.Emulator.Forms;

/// <summary>Approximate functions: within the error that the PTX ISA states, against double precision, with and without jitter.</summary>
internal sealed class ApproximateForms : IOracleTable
{
    private const string Angle = "cvt.rn.f32.s32 %r3, %r1; mul.f32 %r3, %r3, 0f30C90FDB; ";           // 2π/2³¹: angles of two turns

    public IEnumerable<Oracle> Oracles
    {
        get
        {
            foreach (bool ftz in (bool[])[false, true])
            {
                string mode = ftz ? "approx.ftz" : "approx";
                yield return One($"ex2.{mode}", ftz, x => Math.Pow(2, x), -22);
                yield return One($"lg2.{mode}", ftz, x => Math.Log2(x), -22, absolute: true);
                yield return One($"rcp.{mode}", ftz, x => 1 / x, -23);
                yield return One($"sqrt.{mode}", ftz, Math.Sqrt, -23);
                yield return One($"rsqrt.{mode}", ftz, x => x == 0 ? double.CopySign(double.PositiveInfinity, x) : 1 / Math.Sqrt(x), -22.9);
                yield return Two($"div.{mode}", ftz, 2);
                yield return Two($"div.full{(ftz ? ".ftz" : "")}", ftz, 2);
                foreach ((string name, Func<double, double> f) in ((string, Func<double, double>)[])[("sin", Math.Sin), ("cos", Math.Cos)])
                    yield return With($"{Angle}{name}.{mode}.f32 %r0, %r3;", [32], x => f((float)(int)x[0] * BitConverter.UInt32BitsToSingle(0x30C90FDB)), (want, got) => Math.Abs(want - got) <= Math.Pow(2, -20.5));
            }
            yield return One("tanh.approx", false, Math.Tanh, -11);
            // "An approximation", without a bound: at least half of the bits.
            yield return Wide("rcp.approx.ftz.f64", x => 1 / (double.IsSubnormal(x) ? double.CopySign(0, x) : x));
            yield return Wide("rsqrt.approx.ftz.f64", x => x == 0 || double.IsSubnormal(x) ? double.CopySign(double.PositiveInfinity, x) : 1 / Math.Sqrt(x));
            yield return Wide("rsqrt.approx.f64", x => x == 0 ? double.CopySign(double.PositiveInfinity, x) : 1 / Math.Sqrt(x));
        }
    }

    /// <summary>The definition gives the exact value as a double; a float within the bound stands for it. Both with and without jitter.</summary>
    private static Oracle With(string ptx, int[] sources, Func<ulong[], double> exact, Func<double, double, bool> isWithin)
    {
        Oracle plain = ScalarForms.Oracle(ptx, 32, sources, x => Bits(exact(x)), (want, got) => Matches(D(want), F(got), isWithin));
        return plain with
        {
            Run = (options, isQuick) =>
            {
                plain.Run(options, isQuick);
                if (!isQuick) plain.Run(options with { JitterApproximations = true }, isQuick);
            },
        };
    }

    private static bool Matches(double want, float got, Func<double, double, bool> isWithin) =>
        double.IsNaN(want) ? float.IsNaN(got)
        : double.IsInfinity((float)want) ? got == (float)want || Math.Abs((double)got) >= float.MaxValue && Math.Sign(got) == Math.Sign(want)
        : want == 0 ? got == 0 && double.IsNegative(want) == float.IsNegative(got)
        : isWithin(want, got);

    private static Oracle One(string form, bool ftz, Func<double, double> f, double log2Error, bool absolute = false)
    {
        double error = Math.Pow(2, log2Error);
        return With($"{form}.f32 %r0, %r1;", [32], x => Flush(f(ftz ? Ftz(F(x[0])) : F(x[0])), ftz), (want, got) =>
            // Rounding to a subnormal costs half of the smallest one, flushing the whole.
            Math.Abs(want - got) <= error * (absolute ? Math.Max(1, Math.Abs(want)) : Math.Abs(want)) + (ftz ? Math.Abs(want) < 2 * MinNormal && got == 0 ? MinNormal : 0 : float.Epsilon));
    }

    private const double MinNormal = 1.17549435e-38;

    private static double Flush(double x, bool ftz) => ftz && Math.Abs(x) < MinNormal ? double.CopySign(0, x) : x;

    // Stated for divisors between 2^-126 and 2^126; beyond, the quotient may also be zero.
    private static Oracle Two(string form, bool ftz, double ulps) =>
        With($"{form}.f32 %r0, %r1, %r2;", [32, 32], x => ftz ? Flush((double)Ftz(F(x[0])) / Ftz(F(x[1])), ftz) : (double)F(x[0]) / F(x[1]),
            (want, got) => Math.Abs(want - got) <= ulps * Math.Pow(2, -23) * Math.Abs(want) + (ftz ? Math.Abs(want) < 2 * MinNormal && got == 0 ? MinNormal : 0 : float.Epsilon));

    private static Oracle Wide(string form, Func<double, double> f) => ScalarForms.Oracle($"{form} %rd0, %rd1;", 64, [64], x => Bits(f(D(x[0]))), (want, got) =>
        double.IsNaN(D(want)) ? double.IsNaN(D(got)) : Math.Abs(D(want) - D(got)) <= Math.Pow(2, -20) * Math.Abs(D(want)) + 2 * 2.2250738585072014E-308);
}
