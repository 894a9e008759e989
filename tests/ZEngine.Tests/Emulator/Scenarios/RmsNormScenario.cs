using ZEngine.Emulator;

namespace ZEngine.Tests.Emulator.Scenarios;

/// <summary>kernels/RmsNorm.cu, forward and backward, in its three types.</summary>
internal sealed class RmsNormScenario : KernelScenario
{
    public override string File => "RmsNorm.cu";

    public override IEnumerable<Survivor> Survivors =>
    [
        new("rms_norm_forward", "a former sum in sPartial has been read by all", "the forward kernel sums once, so there is no former sum; the barrier serves callers that sum repeatedly"),
    ];

    public override void Run(EmulatorOptions options) => RmsNormKernelTests.Scenario(options);
}
