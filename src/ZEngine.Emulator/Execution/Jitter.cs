using System.Numerics;

namespace ZEngine.Emulator.Execution;

/// <summary>
/// Perturbs the results of approximate functions inside their documented error, by a hash of the seed and the argument, so that a test whose
/// tolerance only a perfect function meets fails.
/// </summary>
internal static unsafe class Jitter
{
    // What rounding the perturbed value to a float costs.
    private const double Rounding = 1.0 / (1 << 24);

    private enum Function { Ex2, Lg2, Rsqrt, Rcp, Sqrt, Sin, Cos, Tanh }

    /// <summary>Puts a perturbation behind a decoded function. Its handler goes into the instruction's spare fields.</summary>
    public static void Wrap(ref Instruction d, string opcode)
    {
        d.Immediate = (long)d.Partial;
        d.Count = (int)Enum.Parse<Function>(opcode, ignoreCase: true);
        d.Full = d.Partial = &Run;
    }

    private static void Run(Warp w, Instruction* i, uint mask)
    {
        float* arguments = stackalloc float[32];
        new Span<float>(w.Registers + i->X[4], 32).CopyTo(new Span<float>(arguments, 32));
        ((delegate*<Warp, Instruction*, uint, void>)i->Immediate)(w, i, mask);
        var function = (Function)i->Count;
        var d = (float*)(w.Registers + i->X[0]);
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            // Special values and what was flushed stay as they are.
            if (!float.IsFinite(d[lane]) || d[lane] == 0 || float.IsSubnormal(d[lane])) continue;
            ulong hash = SeededRandom.Mix(w.Launch.Options.Seed, BitConverter.SingleToUInt32Bits(arguments[lane]));
            d[lane] = Perturbed(function, arguments[lane], (long)hash / 9.3e18);        // by a part in (-1, 1) of the error
        }
    }

    // PTX ISA: maximum error of the .approx forms, relative but for the logarithm near one and the angles.
    private static float Perturbed(Function function, double x, double part)
    {
        double exact = function switch
        {
            Function.Ex2 => Math.Pow(2, x), Function.Lg2 => Math.Log2(x), Function.Rsqrt => 1 / Math.Sqrt(x), Function.Rcp => 1 / x,
            Function.Sqrt => Math.Sqrt(x), Function.Sin => Math.Sin(x), Function.Cos => Math.Cos(x), _ => Math.Tanh(x),
        };
        double error = function switch
        {
            Function.Ex2 or Function.Lg2 => Math.ScaleB(1, -22), Function.Rsqrt or Function.Rcp or Function.Sqrt => Math.ScaleB(1, -23),
            Function.Sin or Function.Cos => Math.ScaleB(1, -21), _ => Math.ScaleB(1, -11),
        };
        bool isAbsolute = function is Function.Sin or Function.Cos || function == Function.Lg2 && x is > 0.5 and < 2;
        return (float)(exact + part * (error - Rounding) * (isAbsolute ? 1 : Math.Abs(exact)));
    }
}
