using System.Globalization;

namespace ZEngine.Tests.Oracles;

/// <summary>The one tolerance rule, the same for every op, tensor, device and machine.</summary>
/// <remarks>
/// Let e = got − want, with want the float64 oracle (or its golden copy), let r be what the oracle loop loses against float64 when it rounds to float32 after
/// every step (with 16-bit activations also what a plain implementation keeps in tensors, <see cref="Oracle.Plain"/>), and ε the distance from 1 to the next number of the tensor's dtype. Then a tensor is close when
/// <code>
/// rms(e)  ≤ 2·rms(r)   + ε·rms(want)                   the tensor as a whole
/// |e[i]|  ≤ 2·max|r|   + ε·(|want[i]| + rms(want))      every element: its own last rounding, and noise of the tensor's size
/// </code>
/// r is one sample of the rounding error, and for a tensor ruled by few elements a sample may come out small by luck. Where the first sample does not
/// cover the error, further ones (stochastic rounding, <see cref="Dithered"/>) are drawn, and the largest counts.
/// Non-finite values are not measured: they must be equal, and NaN is never close.
/// </remarks>
internal static class Close
{
    public const double Float32Epsilon = 1.0 / (1 << 23);
    public const double Float16Epsilon = 1.0 / (1 << 10);
    public const double BFloat16Epsilon = 1.0 / (1 << 7);

    /// <summary>Fails the test with one line when <see cref="Problem"/> finds something.</summary>
    public static void Check(
        string name, string? letters, ReadOnlySpan<float> got, OracleTensor<double> want, IEnumerable<OracleTensor<double>> rounded,
        double epsilon = Float32Epsilon, OracleTensor<double>? exact = null)
    {
        if (Problem(name, letters, got, want, rounded, epsilon, exact) is { } problem) Xunit.Assert.Fail(problem);
    }

    /// <summary>What is wrong, in one line, or null. <paramref name="rounded"/> are float32 runs of the oracle, drawn only as far as needed.</summary>
    /// <param name="letters">Dimension letters such as "B L D", or null when unknown.</param>
    /// <param name="exact">The float64 oracle, where <paramref name="want"/> is a recorded value: rounding errors are measured against it, or a wrong record would excuse itself.</param>
    public static string? Problem(
        string name, string? letters, ReadOnlySpan<float> got, OracleTensor<double> want, IEnumerable<OracleTensor<double>> rounded,
        double epsilon = Float32Epsilon, OracleTensor<double>? exact = null)
    {
        exact ??= want;
        string[]? axes = letters?.Split(' ');
        if (axes?.Length != want.Rank) axes = null;
        string title = axes is null ? $"{name} {Shapes.Text(want.Shape)}" : $"{name} [{string.Join(", ", axes)}]";
        if (got.Length != want.Count) return $"{title}: got {got.Length} values, want {want.Count}";

        for (int i = 0; i < got.Length; i++)
            if (double.IsNaN(want[i]) || ((!double.IsFinite(got[i]) || !double.IsFinite(want[i])) && got[i] != want[i]))
                return $"{title}: not finite at {Found(i, got[i])}";

        double wantRms = Rms(want.Data, static _ => 0), rms = 0, worst = 0;
        float[] gotten = got.ToArray();
        double errorRms = Rms(want.Data, i => gotten[i]);
        foreach (OracleTensor<double> sample in rounded)
        {
            rms = Math.Max(rms, Rms(exact.Data, i => sample[i]));
            for (int i = 0; i < exact.Count; i++)
                if (double.IsFinite(exact[i]) && double.IsFinite(sample[i])) worst = Math.Max(worst, Math.Abs(sample[i] - exact[i]));
            if (errorRms <= RmsBound() && Worst().Excess <= 1) return null;
        }

        (int at, double excess) = Worst();
        if (errorRms > RmsBound())
            return $"{title}: rel rms {Size(errorRms / wantRms)} > {Size(RmsBound() / wantRms)}, worst at {Found(at, gotten[at])}";
        if (excess > 1)
            return $"{title}: error {Size(Math.Abs(gotten[at] - want[at]))} > {Size(ElementBound(at))} at {Found(at, gotten[at])}";
        return null;

        double RmsBound() => 2 * rms + epsilon * wantRms;
        double ElementBound(int i) => 2 * worst + epsilon * (Math.Abs(want[i]) + wantRms);

        (int Index, double Excess) Worst()
        {
            (int index, double most) = (0, 0);
            for (int i = 0; i < gotten.Length; i++)
            {
                double error = Math.Abs(gotten[i] - want[i]);
                if (!double.IsFinite(want[i]) || error == 0) continue;
                double share = error / ElementBound(i);
                if (share > most) (index, most) = (i, share);
            }
            return (index, most);
        }

        string Found(int flat, float value)
        {
            int[] index = Shapes.Unravel(flat, want.Shape);
            string place = string.Join(", ", index.Select((at, axis) => axes is null ? $"{at}" : $"{axes[axis].ToLowerInvariant()} {at}"));
            return $"[{place}]: got {Number(value)}, want {Number(want[flat])}";
        }
    }

    /// <summary>Root mean square of value − want, over the elements where both are finite.</summary>
    private static double Rms(double[] want, Func<int, double> value)
    {
        double sum = 0;
        int count = 0;
        for (int i = 0; i < want.Length; i++)
        {
            double difference = value(i) - want[i];
            if (!double.IsFinite(difference)) continue;
            sum += difference * difference;
            count++;
        }
        return count == 0 ? 0 : Math.Sqrt(sum / count);
    }

    private static string Size(double value) => value.ToString("0.0e-0", CultureInfo.InvariantCulture);
    private static string Number(double value) => value.ToString("G7", CultureInfo.InvariantCulture);
}
