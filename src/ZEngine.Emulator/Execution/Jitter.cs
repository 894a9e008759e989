using System.Numerics;

namespace ZEngine.Emulator.Execution;

/// <summary>
/// Perturbs the results of approximate functions inside their documented error, by a hash of the seed and the result, so that a test whose
/// tolerance only a perfect function meets fails.
/// </summary>
internal static unsafe class Jitter
{
    /// <summary>Puts a perturbation behind a decoded function. Its handlers go into the instruction's spare fields.</summary>
    public static void Wrap(ref Instruction d, string opcode)
    {
        // PTX ISA: maximum relative or absolute error of the .approx forms.
        (double relative, double absolute) = opcode switch
        {
            "ex2" => (Math.ScaleB(1, -22), 0.0),
            "lg2" => (Math.ScaleB(1, -22), Math.ScaleB(1, -22)),
            "rsqrt" => (Math.ScaleB(1, -23), 0.0),
            "rcp" or "sqrt" => (Math.ScaleB(1, -23), 0.0),
            "sin" or "cos" => (0.0, Math.ScaleB(1, -21)),
            _ => (Math.ScaleB(1, -11), 0.0),
        };
        d.Immediate = (long)d.Partial;
        d.Size = BitConverter.SingleToInt32Bits((float)relative);
        d.Count = BitConverter.SingleToInt32Bits((float)absolute);
        d.Full = d.Partial = &Run;
    }

    private static void Run(Warp w, Instruction* i, uint mask)
    {
        ((delegate*<Warp, Instruction*, uint, void>)i->Immediate)(w, i, mask);
        double relative = BitConverter.Int32BitsToSingle(i->Size), absolute = BitConverter.Int32BitsToSingle(i->Count);
        var d = (float*)(w.Registers + i->X[0]);
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            float exact = d[lane];
            if (!float.IsFinite(exact) || exact == 0) continue;
            ulong hash = SeededRandom.Mix(w.Launch.Options.Seed, BitConverter.SingleToUInt32Bits(exact));
            double u = (long)hash / 9.3e18;                                   // in (-1, 1)
            d[lane] = (float)(exact * (1 + u * relative) + u * absolute);
        }
    }
}
