// One room: the emulator's own test kernels, one scenario each, against plain loops.
using ZEngine.Emulator;
using ZEngine.Interop;

namespace ZEngine.Tests.Emulator.Scenarios;

/// <summary>Inputs of the scenarios, and a machine that holds their kernel.</summary>
internal static class Data
{
    public static float[] Random(int count, int seed)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, count).Select(_ => (float)(random.NextDouble() * 2 - 1))];
    }

    public static ushort ToBf16(float x)
    {
        uint bits = BitConverter.SingleToUInt32Bits(x);
        return (ushort)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    }

    public static float FromBf16(ushort x) => BitConverter.UInt32BitsToSingle((uint)x << 16);

    public static ushort[] RandomBf16(int count, int seed) => [.. Random(count, seed).Select(ToBf16)];
}

internal abstract class TestKernelScenario : KernelScenario
{
    public override void Run(EmulatorOptions options)
    {
        using var machine = new Machine(Sources.Compile(File, $"sm_{options.Architecture}"), options);
        Run(machine);
        Assert.Empty(machine.Faults);
    }

    protected abstract void Run(Machine machine);
}

internal sealed class Gemm : TestKernelScenario
{
    public override string File => "Gemm.cu";

    protected override void Run(Machine machine)
    {
        foreach ((int M, int N, int K) in ((int, int, int)[])[(64, 64, 32), (128, 64, 96)])
        {
            ushort[] a = Data.RandomBf16(M * K, 1), b = Data.RandomBf16(K * N, 2);
            DevicePointer pa = machine.Upload(a, "A"), pb = machine.Upload(b, "B"), pc = machine.Empty<float>(M * N, "C");
            machine.Launch("gemm_bf16", new LaunchConfiguration(new Dim3(N / 64, M / 64), 128), pa, pb, pc, M, N, K);
            float[] c = machine.Download<float>(pc, M * N);
            for (int m = 0; m < M; m++)
            {
                for (int n = 0; n < N; n++)
                {
                    double want = 0, size = 0;
                    for (int k = 0; k < K; k++)
                    {
                        double product = (double)Data.FromBf16(a[m * K + k]) * Data.FromBf16(b[k * N + n]);
                        want += product;
                        size += Math.Abs(product);
                    }
                    Assert.InRange(c[m * N + n], want - K * 6e-8 * size, want + K * 6e-8 * size);
                }
            }
        }
    }
}

internal sealed class Attention : TestKernelScenario
{
    private const int L = 192, D = 64, H = 2;                    // three tiles through two stages
    private const float Scale = 0.125f;
    private static readonly ushort[] Q = Data.RandomBf16(H * L * D, 3), K = Data.RandomBf16(H * L * D, 4), V = Data.RandomBf16(H * L * D, 5);
    private static readonly Lazy<double[]> Want = new(Reference);

    public override string File => "Attention.cu";

    protected override void Run(Machine machine)
    {
        DevicePointer pq = machine.Upload(Q, "Q"), pk = machine.Upload(K, "K"), pv = machine.Upload(V, "V"), po = machine.Empty<ushort>(H * L * D, "O");
        machine.Launch("attention_forward", new LaunchConfiguration(new Dim3(L / 64, H), 128), pq, pk, pv, po, L, Scale);
        ushort[] o = machine.Download<ushort>(po, H * L * D);
        double[] want = Want.Value;
        // Probabilities and outputs are rounded to bf16: 2^-9 relative each, with |v| <= 1.
        for (int k = 0; k < o.Length; k++) Assert.InRange(Data.FromBf16(o[k]), want[k] - 0.008, want[k] + 0.008);
    }

    private static double[] Reference()
    {
        double[] o = new double[H * L * D], score = new double[L];
        for (int row = 0; row < H * L; row++)
        {
            int first = row / L * L, count = row % L + 1;
            for (int j = 0; j < count; j++)
            {
                double dot = 0;
                for (int d = 0; d < D; d++) dot += (double)Data.FromBf16(Q[row * D + d]) * Data.FromBf16(K[(first + j) * D + d]);
                score[j] = dot * Scale;
            }
            double top = score.Take(count).Max(), sum = score.Take(count).Sum(s => Math.Exp(s - top));
            for (int j = 0; j < count; j++)
                for (int d = 0; d < D; d++) o[row * D + d] += Math.Exp(score[j] - top) / sum * Data.FromBf16(V[(first + j) * D + d]);
        }
        return o;
    }
}

internal sealed class RmsNormProbe : TestKernelScenario
{
    public override string File => "RmsNormProbe.cu";

    protected override void Run(Machine machine)
    {
        const int rows = 5, n = 300;
        float[] x = Data.Random(rows * n, 6), w = Data.Random(n, 7);
        DevicePointer px = machine.Upload(x, "x"), pw = machine.Upload(w, "w"), py = machine.Empty<float>(rows * n, "y");
        machine.Launch("rmsnorm_f32", new LaunchConfiguration(rows, 256), px, pw, py, n);
        float[] y = machine.Download<float>(py, rows * n);
        for (int r = 0; r < rows; r++)
        {
            double scale = 1 / Math.Sqrt(Enumerable.Range(0, n).Sum(i => (double)x[r * n + i] * x[r * n + i]) / n + 1e-5);
            for (int i = 0; i < n; i++) Assert.Equal(x[r * n + i] * scale * w[i], y[r * n + i], 1e-6);
        }
    }
}

internal sealed class ScanShared : TestKernelScenario
{
    public override string File => "Scan.cu";

    public override IEnumerable<Survivor> Survivors => [new("scan_shared", "for (int o = 1", "the barrier of the last step: after it each thread reads what it wrote itself")];

    protected override void Run(Machine machine)
    {
        float[] x = [.. Enumerable.Range(0, 3 * 256).Select(k => (float)(k * 7 % 13))];
        DevicePointer px = machine.Upload(x), py = machine.Empty<float>(x.Length);
        machine.Launch("scan_shared", new LaunchConfiguration(3, 256), px, py);
        float[] y = machine.Download<float>(py, x.Length);
        for (int b = 0; b < 3; b++)
        {
            float sum = 0;
            for (int t = 0; t < 256; t++) Assert.Equal(sum += x[b * 256 + t], y[b * 256 + t]);
        }
    }
}

internal sealed class ScanLinear : TestKernelScenario
{
    public override string File => "Scan.cu";

    protected override void Run(Machine machine)
    {
        float[] a = Data.Random(128, 8), b = Data.Random(128, 9);
        DevicePointer pa = machine.Upload(a), pb = machine.Upload(b), ph = machine.Empty<float>(128);
        machine.Launch("scan_linear", new LaunchConfiguration(2, 64), pa, pb, ph);
        float[] h = machine.Download<float>(ph, 128);
        double state = 0;
        for (int k = 0; k < 128; k++)
        {
            state = k % 32 == 0 ? b[k] : a[k] * state + b[k];
            Assert.Equal(state, h[k], 1e-5);
        }
    }
}

/// <summary>Data-dependent loops.</summary>
internal sealed class Collatz : TestKernelScenario
{
    public override string File => "Scan.cu";

    protected override void Run(Machine machine)
    {
        uint[] n = [.. Enumerable.Range(1, 128).Select(k => (uint)k)];
        DevicePointer pn = machine.Upload(n), ps = machine.Empty<uint>(128);
        machine.Launch("collatz", new LaunchConfiguration(1, 128), pn, ps);
        uint[] steps = machine.Download<uint>(ps, 128);
        for (int k = 0; k < 128; k++)
        {
            uint want = 0;
            for (uint x = n[k]; x != 1; want++) x = (x & 1) != 0 ? 3 * x + 1 : x >> 1;
            Assert.Equal(want, steps[k]);
        }
    }
}

/// <summary>Blocks that wait for their predecessors.</summary>
internal sealed class LookBack : TestKernelScenario
{
    public override string File => "Scan.cu";

    public override IEnumerable<Survivor> Survivors =>
    [
        new("look_back", "__threadfence(); before = ", "a thread that has seen a flag is taken to know what was fenced before it was set, with or without a fence of its own: much correct code relies on a barrier there"),
    ];

    protected override void Run(Machine machine)
    {
        const int blocks = 9;
        int[] x = [.. Enumerable.Range(0, blocks * 128).Select(k => k % 5)];
        DevicePointer px = machine.Upload(x), py = machine.Empty<int>(x.Length), flags = machine.Upload(new int[blocks], "flags"), sums = machine.Empty<int>(blocks, "sums"), ticket = machine.Upload(new uint[1], "ticket");
        machine.Launch("look_back", new LaunchConfiguration(blocks, 128), px, py, flags, sums, ticket);
        int[] y = machine.Download<int>(py, x.Length);
        int sum = 0;
        for (int k = 0; k < x.Length; k++) Assert.Equal(sum += x[k], y[k]);
    }
}
