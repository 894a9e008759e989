using System.Runtime.InteropServices;
using ZEngine.Emulator;
using ZEngine.Interop;
using Xunit;

namespace ZEngine.Tests.Emulator;

/// <summary>Whole kernels of several styles against plain loops, clean under every check, and with the same bits however they are run.</summary>
public sealed class KernelTests
{
    private static readonly EmulatorOptions[] Ways =
    [
        new() { Checks = EmulatorChecks.None },
        new() { Checks = EmulatorChecks.All },
        new() { Checks = EmulatorChecks.All, Policy = SchedulingPolicy.Fair },
        new() { Checks = EmulatorChecks.All, Policy = SchedulingPolicy.Adversarial, Seed = 1 },
        new() { Checks = EmulatorChecks.All, Policy = SchedulingPolicy.Adversarial, Seed = 2 },
        new() { Checks = EmulatorChecks.Deep, Policy = SchedulingPolicy.Adversarial, Seed = 3 },
        new() { Checks = EmulatorChecks.Deep, Workers = 2 },
    ];

    private static float[] Random(int count, int seed)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, count).Select(_ => (float)(random.NextDouble() * 2 - 1))];
    }

    internal static ushort ToBf16(float x)
    {
        uint bits = BitConverter.SingleToUInt32Bits(x);
        return (ushort)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    }

    internal static float FromBf16(ushort x) => BitConverter.UInt32BitsToSingle((uint)x << 16);

    private static ushort[] RandomBf16(int count, int seed) => [.. Random(count, seed).Select(ToBf16)];

    // Runs in all ways; the results must agree to the bit, and nothing may be reported.
    private static T[] InAllWays<T>(string file, Func<Machine, T[]> run) where T : unmanaged
    {
        T[]? first = null;
        foreach (EmulatorOptions options in Ways)
        {
            using var machine = new Machine(Sources.Read(file), options);
            T[] result = run(machine);
            Assert.Empty(machine.Faults);
            first ??= result;
            Assert.True(MemoryMarshal.AsBytes<T>(first).SequenceEqual(MemoryMarshal.AsBytes<T>(result)), $"other bits under {machine.Driver.Description}, {options.Workers} workers");
        }
        return first!;
    }

    [Theory]
    [InlineData(64, 64, 32)]
    [InlineData(128, 64, 96)]
    public void Gemm_equals_reference(int M, int N, int K)
    {
        ushort[] a = RandomBf16(M * K, 1), b = RandomBf16(K * N, 2);
        float[] c = InAllWays("Gemm.cu", machine =>
        {
            DevicePointer pa = machine.Upload(a, "A"), pb = machine.Upload(b, "B"), pc = machine.Empty<float>(M * N, "C");
            machine.Launch("gemm_bf16", new LaunchConfiguration(new Dim3(N / 64, M / 64), 128), pa, pb, pc, M, N, K);
            return machine.Download<float>(pc, M * N);
        });
        for (int m = 0; m < M; m++)
        {
            for (int n = 0; n < N; n++)
            {
                double want = 0, size = 0;
                for (int k = 0; k < K; k++)
                {
                    double product = (double)FromBf16(a[m * K + k]) * FromBf16(b[k * N + n]);
                    want += product;
                    size += Math.Abs(product);
                }
                Assert.InRange(c[m * N + n], want - K * 6e-8 * size, want + K * 6e-8 * size);
            }
        }
    }

    [Fact]
    public void Attention_equals_reference()
    {
        const int L = 128, D = 64, H = 2;
        float scale = 0.125f;
        ushort[] q = RandomBf16(H * L * D, 3), k = RandomBf16(H * L * D, 4), v = RandomBf16(H * L * D, 5);
        ushort[] o = InAllWays("Attention.cu", machine =>
        {
            DevicePointer pq = machine.Upload(q, "Q"), pk = machine.Upload(k, "K"), pv = machine.Upload(v, "V"), po = machine.Empty<ushort>(H * L * D, "O");
            machine.Launch("attention_forward", new LaunchConfiguration(new Dim3(L / 64, H), 128), pq, pk, pv, po, L, scale);
            return machine.Download<ushort>(po, H * L * D);
        });
        for (int h = 0; h < H; h++)
        {
            for (int i = 0; i < L; i++)
            {
                double[] score = [.. Enumerable.Range(0, i + 1).Select(j => Enumerable.Range(0, D).Sum(d => (double)FromBf16(q[(h * L + i) * D + d]) * FromBf16(k[(h * L + j) * D + d])) * scale)];
                double top = score.Max(), sum = score.Sum(s => Math.Exp(s - top));
                for (int d = 0; d < D; d++)
                {
                    double want = Enumerable.Range(0, i + 1).Sum(j => Math.Exp(score[j] - top) / sum * FromBf16(v[(h * L + j) * D + d]));
                    // Probabilities and outputs are rounded to bf16: 2^-9 relative each, with |v| <= 1.
                    Assert.InRange(FromBf16(o[(h * L + i) * D + d]), want - 0.008, want + 0.008);
                }
            }
        }
    }

    [Fact]
    public void Rms_norm_equals_reference()
    {
        const int rows = 5, n = 300;
        float[] x = Random(rows * n, 6), w = Random(n, 7);
        float[] y = InAllWays("RmsNormProbe.cu", machine =>
        {
            DevicePointer px = machine.Upload(x, "x"), pw = machine.Upload(w, "w"), py = machine.Empty<float>(rows * n, "y");
            machine.Launch("rmsnorm_f32", new LaunchConfiguration(rows, 256), px, pw, py, n);
            return machine.Download<float>(py, rows * n);
        });
        for (int r = 0; r < rows; r++)
        {
            double scale = 1 / Math.Sqrt(Enumerable.Range(0, n).Sum(i => (double)x[r * n + i] * x[r * n + i]) / n + 1e-5);
            for (int i = 0; i < n; i++) Assert.Equal(x[r * n + i] * scale * w[i], y[r * n + i], 1e-6);
        }
    }

    [Fact]
    public void Shared_scan_equals_reference()
    {
        float[] x = [.. Enumerable.Range(0, 3 * 256).Select(k => (float)(k * 7 % 13))];
        float[] y = InAllWays("Scan.cu", machine =>
        {
            DevicePointer px = machine.Upload(x), py = machine.Empty<float>(x.Length);
            machine.Launch("scan_shared", new LaunchConfiguration(3, 256), px, py);
            return machine.Download<float>(py, x.Length);
        });
        for (int b = 0; b < 3; b++)
        {
            float sum = 0;
            for (int t = 0; t < 256; t++) Assert.Equal(sum += x[b * 256 + t], y[b * 256 + t]);
        }
    }

    [Fact]
    public void Linear_recurrence_equals_reference()
    {
        float[] a = Random(128, 8), b = Random(128, 9);
        float[] h = InAllWays("Scan.cu", machine =>
        {
            DevicePointer pa = machine.Upload(a), pb = machine.Upload(b), ph = machine.Empty<float>(128);
            machine.Launch("scan_linear", new LaunchConfiguration(2, 64), pa, pb, ph);
            return machine.Download<float>(ph, 128);
        });
        double state = 0;
        for (int k = 0; k < 128; k++)
        {
            state = k % 32 == 0 ? b[k] : a[k] * state + b[k];
            Assert.Equal(state, h[k], 1e-5);
        }
    }

    [Fact]
    public void Data_dependent_loops_equal_reference()
    {
        uint[] n = [.. Enumerable.Range(1, 128).Select(k => (uint)k)];
        uint[] steps = InAllWays("Scan.cu", machine =>
        {
            DevicePointer pn = machine.Upload(n), ps = machine.Empty<uint>(128);
            machine.Launch("collatz", new LaunchConfiguration(1, 128), pn, ps);
            return machine.Download<uint>(ps, 128);
        });
        for (int k = 0; k < 128; k++)
        {
            uint want = 0;
            for (uint x = n[k]; x != 1; want++) x = (x & 1) != 0 ? 3 * x + 1 : x >> 1;
            Assert.Equal(want, steps[k]);
        }
    }

    [Fact]
    public void Decoupled_look_back_makes_progress_and_is_clean()
    {
        const int blocks = 9;
        int[] x = [.. Enumerable.Range(0, blocks * 128).Select(k => k % 5)];
        int[] y = InAllWays("Scan.cu", machine =>
        {
            DevicePointer px = machine.Upload(x), py = machine.Empty<int>(x.Length), flags = machine.Upload(new int[blocks], "flags"), sums = machine.Empty<int>(blocks, "sums"), ticket = machine.Upload(new uint[1], "ticket");
            machine.Launch("look_back", new LaunchConfiguration(blocks, 128), px, py, flags, sums, ticket);
            return machine.Download<int>(py, x.Length);
        });
        int sum = 0;
        for (int k = 0; k < x.Length; k++) Assert.Equal(sum += x[k], y[k]);
    }
}
