using ZEngine.CrashHost;
using ZEngine.Cuda;
using ZEngine.Distributed;
using ZEngine.Emulator;
using ZEngine.Tests.Training;
using ZEngine.Training;

namespace ZEngine.Tests.Distributed;

/// <summary>Ranks with a CUDA device each, emulated: the path of several GPUs in one process, over NCCL and over the host.</summary>
public sealed class DeviceRankTests
{
    private const int Steps = 4;

    [Theory, InlineData(false), InlineData(true)]
    public void Two_emulated_devices_train_what_the_cpu_trains(bool isSharded)
    {
        using RunFolder alone = new(), overHost = new(), overNccl = new();
        float[] expected = Floats(Train(alone, Communicator.Single, Device.Cpu, isSharded));
        byte[][] host = InProcessWorld.Run(2, world =>
        {
            using var driver = new EmulatedCudaDriver(new EmulatorOptions { Checks = EmulatorChecks.None });
            using CudaDevice device = Devices.OpenEmulated(driver);
            return Train(overHost, world, device, isSharded);
        }, Worlds.Timeout);
        // Buckets are exchanged beside the backward pass: streams without an event between them would be a finding.
        byte[][] nccl = InProcessNccl.Run(2, (world, device) => Train(overNccl, world, device, isSharded), checks: EmulatorChecks.StreamRaces);
        Assert.Equal(host[0], host[1]);
        // The sum of two numbers has one order.
        Assert.All(nccl, weights => Assert.Equal(host[0], weights));
        float[] got = Floats(nccl[0]);
        for (int i = 0; i < expected.Length; i++) Assert.Equal(expected[i], got[i], 1e-4);

        static float[] Floats(byte[] bytes) => System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(bytes).ToArray();
    }

    private static byte[] Train(RunFolder run, Communicator world, Device device, bool isSharded)
    {
        using var model = new TinyModel(width: 8);
        model.Initialize(device, seed: 7);
        TrainingOptions options = run.Options(Steps) with { Accumulation = 2, EvaluationInterval = 0, IsOptimizerSharded = isSharded, SegmentElements = 640, BucketBytes = 6000 };
        new Trainer(model, run.Windows(), null, options, world: world).Run(TestContext.Current.CancellationToken);
        return RunFolder.Weights(model);
    }
}
