using System.Globalization;
using ZEngine.Cuda;
using ZEngine.Emulator;

namespace ZEngine.Bench;

/// <summary>What a decode launch moves and multiplies, counted on the emulator: exact numbers, the same on every machine, against the least that any decode must move.</summary>
internal static class DecodeCounters
{
    private sealed record Case(long Batch, long Keys, long Heads, long Groups, long P, bool IsBytes = false, int Window = 0)
    {
        public override string ToString() => $"B {Batch}, S {Keys}, H {Heads}, G {Groups}, P {P}{(IsBytes ? ", bytes" : "")}{(Window > 0 ? $", window {Window}" : "")}";
    }

    private static readonly Case[] Cases =
    [
        new(1, 512, 8, 2, 128), new(1, 2048, 8, 2, 128), new(1, 8192, 8, 2, 128), new(8, 512, 8, 2, 128),
        new(1, 2048, 2, 2, 64), new(1, 2048, 4, 1, 80), new(1, 2048, 4, 1, 224), new(1, 2048, 4, 1, 256),
        new(1, 2048, 8, 2, 128, IsBytes: true), new(8, 512, 8, 2, 128, IsBytes: true), new(1, 2048, 8, 2, 128, Window: 300),
    ];

    public static void Run(string? filter)
    {
        Console.WriteLine("| decode, BFloat16 | launches | read / least | by 16 bytes | scratch / least | products, MFLOP | other instructions per product | wavefronts / ideal | splits · stages |");
        Console.WriteLine("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
        foreach (Case c in Cases)
            if (filter is null || c.ToString().Contains(filter, StringComparison.OrdinalIgnoreCase)) Console.WriteLine(Row(c));
    }

    private static string Row(Case c)
    {
        using var driver = new EmulatedCudaDriver(new EmulatorOptions { Checks = EmulatorChecks.Counters });
        using CudaDevice device = CudaDevice.Open(0, driver);
        using TensorScope scope = TensorScope.Enter();
        DType stored = c.IsBytes ? DType.Int8 : DType.BFloat16;
        DecodeCache cache = DecodeCache.Contiguous(device, stored, c.Batch, c.Keys, c.Groups, c.P);
        Tensor Values(params ReadOnlySpan<long> shape) => Ops.RandomNormal(shape, device, new RandomStream(1)).To(DType.BFloat16);
        Tensor past = Values(c.Batch, c.Keys - 1, c.Groups, c.P), next = Values(c.Batch, 1, c.Groups, c.P), angles = Ops.RandomNormal([c.Keys, c.P / 2], device, new RandomStream(2));
        Ops.AppendKeyValues(past, past, cache);
        Tensor q = Values(c.Batch, 1, c.Heads, c.P);
        device.Synchronize();
        int before = driver.Profiles.Count;
        Ops.AttentionDecode(q, next, next, cache, new DecodeRotary(angles, angles), new AttentionOptions(Window: c.Window));
        device.Synchronize();
        LaunchProfile launch = driver.Profiles[^1];
        var plan = AttentionDecodePlan.For(c.Heads / c.Groups, c.P, DType.BFloat16, stored, c.Keys, c.Window);
        double least = (double)c.Batch * (c.Window > 0 ? Math.Min(c.Window, c.Keys) : c.Keys) * c.Groups * (2 * c.P * stored.Size + (c.IsBytes ? 8 : 0));
        double scratch = plan.Splits == 1 ? 0 : (double)c.Batch * c.Heads * plan.Splits * (c.P + 2) * 4;
        InstructionCounter matrix = launch[InstructionClass.Matrix], loads = launch[InstructionClass.MatrixLoad];
        return string.Create(CultureInfo.InvariantCulture,
            $"| {c} | {driver.Profiles.Count - before} | {launch.GlobalBytesRead / least:F4} | {launch[InstructionClass.AsyncCopy].Bytes / (double)launch.GlobalBytesRead:F3} | {scratch / least:P2} | {launch.MatrixFlops / 1e6:F1} | {(launch.Total.Executions - matrix.Executions) / (double)matrix.Executions:F1} | {loads.Wavefronts / (4.0 * loads.Executions):F2} | {plan.Splits} · {plan.Stages} |");
    }
}
