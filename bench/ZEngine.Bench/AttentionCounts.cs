using System.Globalization;
using ZEngine.Cuda;
using ZEngine.Emulator;

namespace ZEngine.Bench;

/// <summary>
/// What attention's kernels do, by the emulator's counters: tensor-core work against the formula over visible pairs, what else they execute, bytes and shared memory.
/// The plain composition stands beside them. Counts repeat exactly and guess no time.
/// </summary>
internal static class AttentionCounts
{
    private sealed record Case(string Name, long L, long H, long G, long P, AttentionOptions Options);

    private static readonly Case[] Cases =
    [
        .. from p in (long[])[32, 64, 80, 96, 128, 160, 224, 256] select new Case("causal", 512, 1, 1, p, new AttentionOptions()),
        .. from length in (long[])[128, 1024] select new Case("causal", length, 1, 1, 128, new AttentionOptions()),
        new("full", 512, 1, 1, 128, new AttentionOptions(IsCausal: false)),
        new("window 128", 512, 1, 1, 128, new AttentionOptions(Window: 128)),
        new("window 128", 1024, 1, 1, 128, new AttentionOptions(Window: 128)),
        new("4 heads of a group", 512, 4, 1, 128, new AttentionOptions()),
    ];

    public static void Run(string? filter)
    {
        using var driver = new EmulatedCudaDriver(new EmulatorOptions { Checks = EmulatorChecks.Counters });
        using CudaDevice device = CudaDevice.Open(0, driver);
        Console.WriteLine("| mask | L | P | pass | launches | tensor work / formula | other instructions per product | bytes / least | bank conflicts | M instructions | composition's |");
        Console.WriteLine("|---|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|");
        foreach (Case c in Cases)
            if (filter is null || c.Name.Contains(filter, StringComparison.OrdinalIgnoreCase)) Print(c, device, driver);
    }

    private static void Print(Case c, CudaDevice device, EmulatedCudaDriver driver)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor Normal(ulong seed, long heads) => Ops.RandomNormal([1, c.L, heads, c.P], Device.Cpu, new RandomStream(seed)).To(device).To(DType.BFloat16);
        Tensor q = Normal(1, c.H), k = Normal(2, c.G), v = Normal(3, c.G), dO = Normal(4, c.H);
        var x = new AttentionInputs(q, k, v, (float)(1 / Math.Sqrt(c.P)), c.Options);
        Tensor o = Tensor.EmptyLike(q), lse = Tensor.Empty([1, c.L, c.H], DType.Float32, device), dQ = Tensor.EmptyLike(q), dK = Tensor.EmptyLike(k), dV = Tensor.EmptyLike(v);
        var backend = (CudaBackend)device.Backend;
        Tensor? rest = backend.AttentionRest(o, lse);
        double pairs = Enumerable.Range(0, (int)c.L).Sum(l => (double)(c.Options.IsCausal ? l + 1 - (c.Options.Window > 0 ? Math.Max(0, l + 1 - c.Options.Window) : 0) : c.L)) * c.H;
        long queryBytes = 2 * q.Count, keyBytes = 2 * k.Count;

        LaunchProfile[] plain = Count(() => backend.AttentionReferenceForward(x, o, lse));
        Row("forward", Count(() => backend.AttentionForward(x, o, lse, rest)), plain, 4 * pairs * c.P, 2 * queryBytes + 2 * keyBytes + 4 * lse.Count);
        plain = Count(() => backend.AttentionReferenceBackward(x, o, dO, null, dQ, dK, dV));
        Row("backward", Count(() => backend.AttentionBackward(x, o, lse, rest, dO, null, dQ, dK, dV)), plain, 10 * pairs * c.P, 4 * queryBytes + 4 * keyBytes + 4 * lse.Count);

        LaunchProfile[] Count(Action action)
        {
            device.Synchronize();
            int before = driver.Profiles.Count;
            action();
            device.Synchronize();
            return [.. driver.Profiles.Skip(before)];
        }

        void Row(string pass, LaunchProfile[] launches, LaunchProfile[] composition, double flops, double bytes)
        {
            long products = launches.Sum(launch => launch[InstructionClass.Matrix].Executions), all = launches.Sum(launch => launch.Total.Executions);
            long conflicts = launches.Sum(launch => launch[InstructionClass.MatrixLoad].Wavefronts - 4 * launch[InstructionClass.MatrixLoad].Executions);
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"| {c.Name} | {c.L} | {c.P} | {pass} | {launches.Length} | {launches.Sum(launch => launch.MatrixFlops) / flops:F2} | {(double)(all - products) / products:F2} | {launches.Sum(launch => launch.GlobalBytesRead + launch.GlobalBytesWritten) / bytes:F2} | {conflicts} | {all / 1e6:F2} | {composition.Sum(launch => launch.Total.Executions) / 1e6:F1} |"));
        }
    }
}
