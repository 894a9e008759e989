using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Tests.Ops;

namespace ZEngine.Tests.Emulator.Scenarios;

/// <summary>Sequences against their definition in 16 bits: the token after <see cref="DecodeCase.Lengths"/>, from caches in both forms.</summary>
internal abstract class DecodeScenario : KernelScenario
{
    public override bool Owns(string kernel) => KernelSources.Current.Variants[File].Any(variant => kernel.Contains(variant.Split('<')[0], StringComparison.Ordinal));

    public sealed override void Run(EmulatorOptions options)
    {
        foreach (Action<EmulatorOptions> part in Parts) part(options);
    }

    public abstract override IEnumerable<Action<EmulatorOptions>> Parts { get; }

    protected static void Run(EmulatorOptions options, bool isBytes, DecodeCase c)
    {
        using var driver = new EmulatedCudaDriver(options);
        using CudaDevice device = Devices.OpenEmulated(driver);
        using TensorScope scope = TensorScope.Enter();
        DecodeCache cache = c.Filled(device, DType.BFloat16, isPaged: true, isBytes);
        (float[] o, float[] lse) = c.Decode(device, DType.BFloat16, cache);
        Assert.Equal([.. c.Lengths.Select(length => length + 1L)], cache.Lengths.ToArray<long>());
        int rows = c.Lengths.Max() + 1;
        (Tensor keys, Tensor values) = ZEngine.Ops.ReadKeyValues(cache, rows, DType.BFloat16);
        float[] stored = keys.To(DType.Float32).ToArray<float>(), want = c.Stored(isKey: true, rows, x => (float)(BFloat16)x);
        for (int i = 0; i < want.Length; i++) Assert.InRange(Math.Abs(want[i] - stored[i]), 0, isBytes ? 0.05f : 0.03f);
        (double[] wantO, double[] wantLse) = c.Expected(stored, values.To(DType.Float32).ToArray<float>(), rows, x => (float)(BFloat16)x);
        for (int i = 0; i < o.Length; i++) Assert.InRange(Math.Abs(wantO[i] - o[i]), 0, 0.03);
        for (int i = 0; i < lse.Length; i++) Assert.InRange(Math.Abs(wantLse[i] - lse[i]), 0, 0.03);
        Assert.Empty(driver.Faults);
    }

    /// <summary>Tokens of two sequences in a ring, behind prompts that it does not hold, equal those of a cache that holds all.</summary>
    protected static void RunRing(EmulatorOptions options, bool isBytes)
    {
        using var driver = new EmulatedCudaDriver(options);
        using CudaDevice device = Devices.OpenEmulated(driver);
        using TensorScope scope = TensorScope.Enter();
        var c = new DecodeCase(2, 1, 16, 20, 41) { Window = 15 };
        DType stored = isBytes ? DType.Int8 : DType.BFloat16;
        DecodeCache ring = DecodeCache.Contiguous(device, stored, c.Batch, c.Capacity, c.Groups, c.P, c.Window), all = c.Filled(device, DType.BFloat16, isBytes: isBytes);
        for (int b = 0; b < c.Batch; b++)
            ZEngine.Ops.AppendKeyValues(c.Past(1, b, device, DType.BFloat16), c.Past(2, b, device, DType.BFloat16), ring.Slice(b, 1));
        for (int step = 0; step < 3; step++) Assert.Equal(c.Decode(device, DType.BFloat16, all).O, c.Decode(device, DType.BFloat16, ring).O);
        Assert.Empty(driver.Faults);
    }
}

/// <summary>kernels/AttentionDecode.cu: two rounds of heads, several tiles, several splits, and rows so wide that two stages fit alone.</summary>
internal sealed class AttentionDecodeScenario : DecodeScenario
{
    public override string File => "AttentionDecode.cu";

    public override IEnumerable<Survivor> Survivors =>
    [
        new("attention_decode", "what the block wrote can be seen", "seeing the ticket orders what came before it here; on a GPU the fence does that", 2),
        new("attention_decode", "so it is with all others", "as the fence before it", 2),
    ];

    private static readonly DecodeCase[] Cases = [new(18, 1, 16, 100) { Pairs = 8, Capacity = 112 }, new(1, 1, 40, 300) { Pairs = 20, Capacity = 320 }, new(1, 1, 256, 100) { Pairs = 128, Capacity = 112 }];

    public override IEnumerable<Action<EmulatorOptions>> Parts =>
        from isBytes in (bool[])[false, true]
        from part in (Action<EmulatorOptions>[])[.. Cases.Select(c => (Action<EmulatorOptions>)(options => Run(options, isBytes, c))), options => RunRing(options, isBytes)]
        select part;
}

/// <summary>kernels/DecodeCache.cu.</summary>
internal sealed class DecodeCacheScenario : DecodeScenario
{
    public override string File => "DecodeCache.cu";

    public override IEnumerable<Survivor> Survivors => [new("decode_cache_append", "so it is with all others", "seeing the ticket orders what came before it here; on a GPU the fence does that")];

    public override IEnumerable<Action<EmulatorOptions>> Parts =>
    [
        options => Run(options, isBytes: false, new DecodeCase(2, 2, 24, 20, 3)),
        options => Run(options, isBytes: true, new DecodeCase(2, 2, 24, 20, 3)),
        options => Run(options, isBytes: true, new DecodeCase(2, 2, 13, 20)),
    ];
}
