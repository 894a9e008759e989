using ZEngine.Cuda;
using ZEngine.Emulator;

namespace ZEngine.Tests.Ops;

/// <summary>A CUDA device over an emulator with every check, which tells what each launch moved.</summary>
internal sealed class CountedDevice : IDisposable
{
    private readonly EmulatedCudaDriver _driver;
    private int _counted;

    public CountedDevice(int architecture = 80, CudaOptions? options = null)
    {
        _driver = new EmulatedCudaDriver(new EmulatorOptions { Checks = EmulatorChecks.All, Architecture = architecture });
        Device = Devices.OpenEmulated(_driver, options);
    }

    public CudaDevice Device { get; }

    /// <summary>Normal numbers, the same for the same seed.</summary>
    public Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => ZEngine.Ops.RandomNormal(shape, ZEngine.Device.Cpu, new RandomStream(seed)).To(Device);

    /// <summary>The launches since the last call, in order.</summary>
    public LaunchProfile[] Launches()
    {
        Device.Synchronize();
        LaunchProfile[] launches = [.. _driver.Profiles.Skip(_counted)];
        _counted += launches.Length;
        return launches;
    }

    /// <summary>Runs an action and returns the counters of its launches; a finding of a check is an exception.</summary>
    public LaunchProfile[] Profile(Action action)
    {
        Device.Synchronize();
        _counted = _driver.Profiles.Count;
        action();
        LaunchProfile[] launches = Launches();
        Assert.Empty(_driver.Faults);
        return launches;
    }

    /// <summary>The bytes are these, every sector is full, and loads (and stores) are of 16 bytes a thread: 512 bytes to a request of a warp.</summary>
    public static void CheckWide(LaunchProfile profile, long read, long written, bool isWrittenWide = true)
    {
        Assert.Equal((read, written), (profile.GlobalBytesRead, profile.GlobalBytesWritten));
        Assert.Equal(read / 32, profile[InstructionClass.GlobalLoad].Sectors);
        Assert.Equal(read / 512, profile[InstructionClass.GlobalLoad].Requests);
        if (!isWrittenWide) return;
        Assert.Equal(written / 32, profile[InstructionClass.GlobalStore].Sectors);
        Assert.Equal(written / 512, profile[InstructionClass.GlobalStore].Requests);
    }

    /// <summary>The kernels of launches, in order.</summary>
    public static void Are(string[] names, LaunchProfile[] launches)
    {
        Assert.Equal(names.Length, launches.Length);
        for (int i = 0; i < names.Length; i++) Assert.Contains(names[i], launches[i].Kernel, StringComparison.Ordinal);
    }

    /// <summary>The bytes that a launch read and wrote.</summary>
    public static void Moved(long read, long written, LaunchProfile launch) => Assert.Equal((read, written), (launch.GlobalBytesRead, launch.GlobalBytesWritten));

    /// <summary>Every lane's loads and stores are of 16 bytes, and stores fill the sectors that they touch.</summary>
    public static void IsWide(LaunchProfile launch)
    {
        (InstructionCounter load, InstructionCounter store) = (launch[InstructionClass.GlobalLoad], launch[InstructionClass.GlobalStore]);
        Assert.Equal((16 * load.Threads, 16 * store.Threads, store.Bytes / 32), (load.Bytes, store.Bytes, store.Sectors));
    }

    /// <summary>Loads, copies and stores use all of the sectors that they touch.</summary>
    public static void FillsSectors(LaunchProfile launch)
    {
        foreach (InstructionClass kind in (ReadOnlySpan<InstructionClass>)[InstructionClass.GlobalLoad, InstructionClass.AsyncCopy, InstructionClass.GlobalStore])
            Assert.Equal(launch[kind].Bytes, 32 * launch[kind].Sectors);
    }

    /// <summary>Each pass over the banks of shared memory moves what the banks hold: 128 bytes, or what a request asked for that asked for less.</summary>
    /// <param name="launch">What was counted.</param>
    /// <param name="words">Requests among others that ask for single words, as the sums of a block do.</param>
    public static void HasNoBankConflicts(LaunchProfile launch, long words = 0)
    {
        foreach (InstructionClass kind in (ReadOnlySpan<InstructionClass>)[InstructionClass.SharedLoad, InstructionClass.SharedStore])
        {
            InstructionCounter counter = launch[kind];
            Assert.InRange(counter.Wavefronts, 0, words + Math.Max(counter.Requests, (counter.Bytes + 127) / 128));
        }
    }

    /// <summary>An op on 16-bit inputs gives what it gives on the same numbers in Float32, rounded: its output and the gradients of all inputs.</summary>
    public void RoundsOnce(DType dtype, Func<Tensor[], Tensor> op, params Tensor[] inputs)
    {
        Tensor[] narrow = [.. inputs.Select(x => x.To(dtype))];
        float[][] want = Results(op, [.. narrow.Select(x => x.To(DType.Float32))], dtype), got = Results(op, narrow, dtype);
        double unit = dtype == DType.BFloat16 ? 1.0 / 128 : 1.0 / 1024;
        for (int k = 0; k < want.Length; k++)
        {
            double scale = Math.Sqrt(want[k].Average(w => (double)w * w));
            for (int i = 0; i < want[k].Length; i++)
                if (!(Math.Abs(want[k][i] - got[k][i]) <= unit * Math.Max(Math.Abs(want[k][i]), scale / 64))) Assert.Fail($"{dtype} result {k} at {i}: got {got[k][i]:R}, want {want[k][i]:R}");
        }
    }

    private static float[][] Results(Func<Tensor[], Tensor> op, Tensor[] inputs, DType dtype)
    {
        using Tape tape = Tape.Begin();
        foreach (Tensor input in inputs) tape.Watch(input);
        Tensor y = op(inputs);
        Tensor dy = ZEngine.Ops.RandomNormal(y.Shape, ZEngine.Device.Cpu, new RandomStream(99)).To(y.Device).To(dtype).To(y.DType);
        tape.Backward(y, dy);
        var results = new List<float[]> { y.To(DType.Float32).ToArray<float>() };
        foreach (Tensor input in inputs) results.Add(tape.GradientOf(input).To(DType.Float32).ToArray<float>());
        return [.. results];
    }

    public void Dispose()
    {
        Device.Dispose();
        _driver.Dispose();
    }
}
