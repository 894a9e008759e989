using ZEngine.Cuda;
using ZEngine.Emulator;

namespace ZEngine.Tests.Emulator;

/// <summary>A CUDA device over an emulator with every check on, whose launches a test counts.</summary>
internal sealed class KernelProbe : IDisposable
{
    private readonly EmulatedCudaDriver _driver = new(new EmulatorOptions { Checks = EmulatorChecks.All });

    public KernelProbe() => Device = Devices.OpenEmulated(_driver);

    public CudaDevice Device { get; }

    /// <summary>Runs an action and returns the counters of its launches; a finding of a check is an exception.</summary>
    public LaunchProfile[] Profile(Action action)
    {
        Device.Synchronize();
        int before = _driver.Profiles.Count;
        action();
        Device.Synchronize();
        Assert.Empty(_driver.Faults);
        return [.. _driver.Profiles.Skip(before)];
    }

    /// <summary>The bytes are these, every sector is full, and loads (and stores) are of 16 bytes a thread: 512 bytes to a request of a warp.</summary>
    public void CheckWide(LaunchProfile profile, long read, long written, bool isWrittenWide = true)
    {
        Assert.Equal((read, written), (profile.GlobalBytesRead, profile.GlobalBytesWritten));
        Assert.Equal(read / 32, profile[InstructionClass.GlobalLoad].Sectors);
        Assert.Equal(read / 512, profile[InstructionClass.GlobalLoad].Requests);
        if (!isWrittenWide) return;
        Assert.Equal(written / 32, profile[InstructionClass.GlobalStore].Sectors);
        Assert.Equal(written / 512, profile[InstructionClass.GlobalStore].Requests);
    }

    public void Dispose()
    {
        Device.Dispose();
        _driver.Dispose();
    }
}
