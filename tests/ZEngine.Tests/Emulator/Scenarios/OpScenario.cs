using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Tests.Ops;
using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Emulator.Scenarios;

/// <summary>Small cases of an op on the CUDA device, compared with the oracle: a kernel file's scenario is which cases reach all of it.</summary>
internal abstract class OpScenario : KernelScenario
{
    private readonly Lazy<OpCase[]> _made;

    protected OpScenario() => _made = new Lazy<OpCase[]>(() => [.. Cases]);

    /// <summary>The cases, which together launch every kernel of the file and reach every barrier in it.</summary>
    protected virtual IEnumerable<OpCase> Cases => [];

    /// <summary>The types of activations that are run.</summary>
    protected virtual DType[] Types => [DType.Float32];

    /// <summary>What the op's cases do not reach.</summary>
    protected virtual void More(CudaDevice device) { }

    /// <summary>The first sum of a block needs no barrier before it; the barrier serves kernels that sum again.</summary>
    protected static Survivor FirstSum(string kernel) => new(kernel, "a former result in sPartial has been read by all", "the kernel's first sum: there is no former result");

    public sealed override bool Owns(string kernel) => KernelSources.Current.Variants[File].Any(variant => kernel.Contains(variant.Split('<')[0], StringComparison.Ordinal));

    public sealed override void Run(EmulatorOptions options) => Run(options, [.. Steps]);

    public sealed override IEnumerable<Action<EmulatorOptions>> Parts => Steps.Select(step => (Action<EmulatorOptions>)(options => Run(options, step)));

    private IEnumerable<Action<CudaDevice>> Steps =>
    [
        .. from type in Types from c in _made.Value select (Action<CudaDevice>)(device => EngineOp.Compare(OracleReference.Of(c, type), device, type)),
        device =>
        {
            using TensorScope scope = TensorScope.Enter();
            More(device);
        },
    ];

    private static void Run(EmulatorOptions options, params Action<CudaDevice>[] steps)
    {
        using var driver = new EmulatedCudaDriver(options);
        using CudaDevice device = Devices.OpenEmulated(driver);
        foreach (Action<CudaDevice> step in steps) step(device);
    }

    protected static CaseBuilder Case(string op, string reason) => OpData.Case(op, reason);
}
