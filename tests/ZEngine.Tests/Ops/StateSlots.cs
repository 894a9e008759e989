namespace ZEngine.Tests.Ops;

/// <summary>What ops that step the states of sequences in slots have in common: three slots with a convolution's inputs and a scan's state each, of which a step may touch some.</summary>
internal static class StateSlots
{
    private const int Count = 3;

    /// <summary>Sequences without a slot get zeros and change no state; the one with the last slot gets something, and its state changes.</summary>
    public static void IdleChangeNothing(Device device, Tensor convolution, Tensor scan, Func<Tensor, Tensor> step)
    {
        (float[] inputs, float[] states) = (Floats(convolution), Floats(scan));
        Tensor y = step(Tensor.From<long>([-1, Count - 1, -5], [Count], device));
        Assert.All(Floats(y.Slice(0, 0, 1)), value => Assert.Equal(0, value));
        Assert.All(Floats(y.Slice(0, 2, 1)), value => Assert.Equal(0, value));
        Assert.Contains(Floats(y.Slice(0, 1, 1)), value => value != 0);
        Assert.Equal(Idle(inputs), Idle(Floats(convolution)));
        Assert.Equal(Idle(states), Idle(Floats(scan)));
        Assert.NotEqual(states, Floats(scan));

        static float[] Idle(float[] all) => all[..(all.Length / Count * (Count - 1))];
    }

    /// <summary>A step with a slot that there is not is an error, on the CPU and on an emulator of its own, which a fault leaves unusable.</summary>
    public static void UnknownIsAnError(Func<Device, Tensor, Tensor> step)
    {
        using TensorScope scope = TensorScope.Enter();
        foreach (string name in Devices.Names.Where(name => name is "cpu" or "emulator"))
        {
            using var driver = new ZEngine.Emulator.EmulatedCudaDriver(new ZEngine.Emulator.EmulatorOptions());
            using ZEngine.Cuda.CudaDevice? own = name == "cpu" ? null : Devices.OpenEmulated(driver);
            Device device = own ?? Device.Cpu;
            Assert.ThrowsAny<Exception>(() => Floats(step(device, Tensor.From<int>([0, Count, 1], [Count], device))));
        }
    }

    /// <summary>Slots whose states stand beyond 2³¹ elements, in memory that nothing touches between them: the same as in slots side by side.</summary>
    public static void FarAreFound(Device device, (Tensor Convolution, Tensor Scan) near, (Tensor Convolution, Tensor Scan) far, Func<Tensor> stepNear, Func<Tensor, Tensor> stepFar)
    {
        long slots = far.Scan.Shape[0];
        Assert.True(far.Scan.Count > 1L << 31);
        long[] places = [slots - 1, 0, slots - 2];
        for (int b = 0; b < Count; b++)
        {
            ZEngine.Ops.Copy(near.Convolution.Slice(0, b, 1), far.Convolution.Slice(0, places[b], 1));
            ZEngine.Ops.Copy(near.Scan.Slice(0, b, 1), far.Scan.Slice(0, places[b], 1));
        }
        Tensor want = stepNear(), got = stepFar(Tensor.From<long>(places, [Count], device));
        Assert.Equal(Floats(want), Floats(got));
        for (int b = 0; b < Count; b++)
        {
            Assert.Equal(Floats(near.Scan.Slice(0, b, 1)), Floats(far.Scan.Slice(0, places[b], 1)));
            Assert.Equal(Floats(near.Convolution.Slice(0, b, 1)), Floats(far.Convolution.Slice(0, places[b], 1)));
        }
    }

    private static float[] Floats(Tensor tensor) => tensor.To(DType.Float32).ToArray<float>();
}
