using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace ZEngine.Bench;

/// <summary>What this machine can do at most, measured between the rows: the best seen in the run counts.</summary>
internal sealed unsafe class Machine : IDisposable
{
    private const long SumBytes = 256L << 20;                  // beyond any last-level cache of a desktop

    private readonly float* _buffer = (float*)NativeMemory.AlignedAlloc((nuint)SumBytes, 128);
    private readonly Dictionary<int, (double Flops, double Bytes)> _best = [];

    public Machine() => new Span<byte>(_buffer, (int)SumBytes).Fill(1);

    public static string Describe()
    {
        string model = "unknown CPU";
        if (File.Exists("/proc/cpuinfo"))
            model = File.ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith("model name", StringComparison.Ordinal))?.Split(':')[1].Trim() ?? model;
        return $"{model}, {Environment.ProcessorCount} cores, SIMD {CpuDevice.Simd}, .NET {Environment.Version}, {RuntimeInformation.OSArchitecture}";
    }

    /// <summary>FLOP/s of multiply-adds on registers, and bytes/s of a sum over memory, on so many threads.</summary>
    public (double Flops, double Bytes) Limits(int threads) => _best.GetValueOrDefault(threads);

    /// <summary>Measures once more and keeps the better numbers.</summary>
    public void Probe(int threads)
    {
        (double flops, double bytes) = _best.GetValueOrDefault(threads);
        flops = Math.Max(flops, ProbeFlops(threads));
        bytes = Math.Max(bytes, ProbeBytes(threads));
        _best[threads] = (flops, bytes);
    }

    private static double ProbeFlops(int threads)
    {
        const long steps = 200_000;
        double best = 0;
        for (int i = 0; i < 3; i++)
        {
            double start = Clock.Seconds;
            Parallel(threads, _ => RegisterTile(steps));
            best = Math.Max(best, threads * steps * FlopsPerStep / (Clock.Seconds - start));
        }
        return best;
    }

    private double ProbeBytes(int threads)
    {
        long part = SumBytes / sizeof(float) / threads / 256 * 256;
        double start = Clock.Seconds;
        Parallel(threads, t => Sum(_buffer + t * part, part));
        return part * sizeof(float) * threads / (Clock.Seconds - start);
    }

    private static void Parallel(int threads, Action<int> work)
    {
        if (threads == 1) work(0);
        else System.Threading.Tasks.Parallel.For(0, threads, new ParallelOptions { MaxDegreeOfParallelism = threads }, work);
    }

    private static int Lanes => Vector512.IsHardwareAccelerated ? 16 : Vector256.IsHardwareAccelerated ? 8 : 4;

    private static double FlopsPerStep => 12.0 * 2 * Lanes;

    private static float RegisterTile(long steps) =>
        Vector512.IsHardwareAccelerated ? Tile<Floats16>(steps) : Vector256.IsHardwareAccelerated ? Tile<Floats8>(steps) : Tile<Floats4>(steps);

    /// <summary>Twelve independent multiply-adds a step: enough to hide their latency, nothing from memory.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static float Tile<T>(long steps) where T : struct, IFloats<T>
    {
        T x = T.Broadcast(0.5f), y = T.Broadcast(0.25f);
        T a = T.Zero, b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a, l = a;
        for (; steps > 0; steps--)
        {
            a = T.MulAdd(x, a, y); b = T.MulAdd(x, b, y); c = T.MulAdd(x, c, y); d = T.MulAdd(x, d, y);
            e = T.MulAdd(x, e, y); f = T.MulAdd(x, f, y); g = T.MulAdd(x, g, y); h = T.MulAdd(x, h, y);
            i = T.MulAdd(x, i, y); j = T.MulAdd(x, j, y); k = T.MulAdd(x, k, y); l = T.MulAdd(x, l, y);
        }
        return (a + b + c + d + e + f + g + h + i + j + k + l).Sum();
    }

    /// <summary>Σ x over a whole number of rounds of four registers.</summary>
    public static float Sum(float* x, long count) =>
        Vector512.IsHardwareAccelerated ? Sum<Floats16>(x, count) : Vector256.IsHardwareAccelerated ? Sum<Floats8>(x, count) : Sum<Floats4>(x, count);

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static float Sum<T>(float* x, long count) where T : struct, IFloats<T>
    {
        T a = T.Zero, b = a, c = a, d = a;
        for (long i = 0; i < count; i += 4 * T.Width)
            (a, b, c, d) = (a + T.Load(x + i), b + T.Load(x + i + T.Width), c + T.Load(x + i + 2 * T.Width), d + T.Load(x + i + 3 * T.Width));
        return (a + b + c + d).Sum();
    }

    public void Dispose() => NativeMemory.AlignedFree(_buffer);
}
