namespace ZEngine.Bench;

/// <summary>One op at one size, on any device.</summary>
/// <param name="Op">Name of the op.</param>
/// <param name="Pass"><c>forward</c>, <c>train</c> (forward and backward together), <c>step</c>, <c>decode</c>, <c>bytes</c>: decode against keys and values in bytes, or <c>halves</c>: with states in the type of the row.</param>
/// <param name="Sizes">The sizes by their letters; what a peer makes its operands from.</param>
/// <param name="Flops">As <see cref="TableRow.Flops"/>.</param>
/// <param name="Bytes">Of operands and results, each counted once per pass, in the type of the row.</param>
/// <param name="Prepare">Makes the operands and returns one run.</param>
internal sealed record DeviceRow(string Op, string Pass, IReadOnlyDictionary<string, long> Sizes, double Flops, double Bytes, Func<DeviceOperands, Action> Prepare)
{
    public string Shape => string.Join(" ", Sizes.Select(size => $"{size.Key} {size.Value}"));
}

/// <summary>Sizes of the rows: those of a model's layers where the device is a GPU, and less where its time would be too long.</summary>
internal sealed record DeviceSizes(long B, long L, long D, long F, long V, long M, long Heads, long HeadDimension, long ScanChannels, long SsdHeads, long SsdStates, long Experts, long Hidden, long Numbers, long Keys)
{
    public static readonly DeviceSizes Gpu = new(8, 2048, 4096, 8192, 32768, 8192, 32, 128, 4096, 64, 128, 8, 4096, 1 << 26, 1 << 17);

    public static readonly DeviceSizes Cpu = new(2, 256, 1024, 2048, 8192, 768, 8, 64, 1024, 16, 64, 8, 512, 1 << 20, 1 << 13);

    public static readonly DeviceSizes Emulator = new(1, 128, 256, 256, 1024, 256, 2, 64, 64, 2, 64, 4, 128, 1 << 15, 1 << 10);

    public long T => B * L;
}

/// <summary>Operands that live as long as a row is measured.</summary>
internal sealed class DeviceOperands(Device device, DType dtype) : IDisposable
{
    private readonly List<IDisposable> _owned = [];
    private ulong _seed;

    public Device Device => device;

    /// <summary>Normal numbers in the type of the row.</summary>
    public Tensor Normal(params ReadOnlySpan<long> shape) => Made(dtype, shape);

    /// <summary>Normal numbers in Float32: vectors of parameters, tables and states.</summary>
    public Tensor Float(params ReadOnlySpan<long> shape) => Made(DType.Float32, shape);

    /// <summary>Normal numbers in a type.</summary>
    public Tensor Made(DType type, params ReadOnlySpan<long> shape)
    {
        // Made where it is used: no transfer of gigabytes. A normal number fits any type.
        using TensorScope scope = TensorScope.Enter();
        return Own(TensorScope.Release(Ops.RandomNormal(shape, device, new RandomStream(++_seed)).To(type)));
    }

    public Tensor Zeros(DType type, params ReadOnlySpan<long> shape) => Own(Tensor.Zeros(shape, type, device));

    public Tensor Tokens(long bound, params ReadOnlySpan<long> shape)
    {
        Tensor tokens = Own(Tensor.Empty(shape, DType.Int64, device));
        var values = new long[tokens.Count];
        for (int i = 0; i < values.Length; i++) values[i] = new RandomStream(7).Below(i, bound);
        tokens.CopyFrom<long>(values);
        return tokens;
    }

    public Tensor Own(Tensor tensor)
    {
        _owned.Add(tensor);
        return tensor;
    }

    public static void Once(Action forward)
    {
        using TensorScope scope = TensorScope.Enter();
        forward();
    }

    public static void Train(Func<Tensor> forward, Tensor dy, params ReadOnlySpan<Tensor> inputs)
    {
        using Tape tape = Tape.Begin();
        foreach (Tensor input in inputs) tape.Watch(input);
        tape.Backward(forward(), dy);
    }

    public void Dispose()
    {
        foreach (IDisposable owned in _owned) owned.Dispose();
        _owned.Clear();
    }
}
