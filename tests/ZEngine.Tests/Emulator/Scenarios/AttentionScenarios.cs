// One room: the scenarios of the files of attention.
using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Tests.Ops;
using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Emulator.Scenarios;

/// <summary>Several tiles of queries and of keys, in 16 bits and in Float32, on an architecture that holds two stages of the backward pass and on one that holds one.</summary>
internal abstract class AttentionScenario : KernelScenario
{
    private static readonly Dictionary<string, OracleReference> References = [];

    protected static OracleReference Reference(DType type, int queries, int keys, int headSize)
    {
        string reason = $"scenario {type} {queries} {keys} {headSize}";
        lock (References)
        {
            if (References.TryGetValue(reason, out OracleReference? reference)) return reference;
            OpCase c = OpData.Case("attention", reason).With("causal", true).Normal("q", [1, queries, 1, headSize]).Normal("k", [1, keys, 1, headSize]).Normal("v", [1, keys, 1, headSize]).Build("o");
            return References[reason] = new OracleReference(type == DType.BFloat16 ? c.Quantize(x => (float)(BFloat16)x) : c);
        }
    }

    protected abstract IEnumerable<(int Architecture, DType Type, int Queries, int Keys, int HeadSize)> Cases { get; }

    public sealed override IEnumerable<Action<EmulatorOptions>> Parts => Cases.Select(c => (Action<EmulatorOptions>)(options =>
    {
        using var driver = new EmulatedCudaDriver(options with { Architecture = c.Architecture });
        using CudaDevice device = Devices.OpenEmulated(driver);
        EngineOp.Compare(Reference(c.Type, c.Queries, c.Keys, c.HeadSize), device, c.Type);
    }));

    public sealed override void Run(EmulatorOptions options)
    {
        foreach (Action<EmulatorOptions> part in Parts) part(options);
    }
}

/// <summary>kernels/AttentionForward.cu: rings of four buffers and of two, and of two with halves of tiles.</summary>
internal sealed class AttentionForwardScenario : AttentionScenario
{
    public override string File => "AttentionForward.cu";

    public override bool Owns(string kernel) => kernel.Contains("attention_forward", StringComparison.Ordinal);

    protected override IEnumerable<(int Architecture, DType Type, int Queries, int Keys, int HeadSize)> Cases =>
        [(80, DType.BFloat16, 20, 270, 24), (80, DType.BFloat16, 20, 200, 80), (80, DType.Float32, 9, 70, 40), (86, DType.BFloat16, 20, 140, 104)];
}

/// <summary>kernels/AttentionBackward.cu.</summary>
internal sealed class AttentionBackwardScenario : AttentionScenario
{
    public override string File => "AttentionBackward.cu";

    public override bool Owns(string kernel) => kernel.Contains("attention_backward", StringComparison.Ordinal) || kernel.Contains("attention_delta_backward", StringComparison.Ordinal);

    public override IEnumerable<Survivor> Survivors =>
        [new("attention_backward", "the turn is seen before the sums", "seeing the turn orders what came before it here; on a GPU the fence does that", Most: 2)];

    protected override IEnumerable<(int Architecture, DType Type, int Queries, int Keys, int HeadSize)> Cases =>
        from architecture in (int[])[80, 86]
        from size in ((DType Type, int Queries, int Keys, int HeadSize)[])[(DType.BFloat16, 200, 260, 80), (DType.Float32, 70, 70, 80)]
        select (architecture, size.Type, size.Queries, size.Keys, size.HeadSize);
}

/// <summary>kernels/AttentionReference.cu, which no op launches.</summary>
internal sealed class AttentionReferenceScenario : OpScenario
{
    public override string File => "AttentionReference.cu";
    public override IEnumerable<Survivor> Survivors => [FirstSum("attention_softmax_forward"), FirstSum("attention_softmax_backward")];

    protected override void More(CudaDevice device)
    {
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(seed));
        var x = new AttentionInputs(Normal(1, 1, 3, 2, 4), Normal(2, 1, 130, 1, 4), Normal(3, 1, 130, 1, 4), 0.5f, new AttentionOptions());
        Tensor dO = Normal(4, 1, 3, 2, 4), o = Tensor.EmptyLike(x.Q), lse = Tensor.Empty([1, 3, 2], DType.Float32, Device.Cpu);
        Tensor[] d = [Tensor.EmptyLike(x.Q), Tensor.EmptyLike(x.K), Tensor.EmptyLike(x.V)];
        Device.Cpu.Backend.AttentionForward(x, o, lse, null);
        Device.Cpu.Backend.AttentionBackward(x, o, lse, null, dO, null, d[0], d[1], d[2]);

        var backend = (CudaBackend)device.Backend;
        AttentionInputs there = x with { Q = x.Q.To(device), K = x.K.To(device), V = x.V.To(device) };
        Tensor thereO = Tensor.EmptyLike(there.Q), thereLse = lse.To(device);
        Tensor[] thereD = [Tensor.EmptyLike(there.Q), Tensor.EmptyLike(there.K), Tensor.EmptyLike(there.V)];
        backend.AttentionReferenceForward(there, thereO, thereLse);
        backend.AttentionReferenceBackward(there, thereO, dO.To(device), null, thereD[0], thereD[1], thereD[2]);
        foreach ((Tensor want, Tensor got) in (ReadOnlySpan<(Tensor, Tensor)>)[(o, thereO), (lse, thereLse), (d[0], thereD[0]), (d[1], thereD[1]), (d[2], thereD[2])])
        {
            (float[] wanted, float[] gotten) = (want.ToArray<float>(), got.ToArray<float>());
            for (int i = 0; i < wanted.Length; i++) Assert.Equal(wanted[i], gotten[i], 1e-5f);
        }
    }
}
