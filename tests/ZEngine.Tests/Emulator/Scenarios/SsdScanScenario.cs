using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Emulator.Scenarios;

/// <summary>Chunks of two heads with several slices of channels and states, in 16 bits or floats, against the CPU.</summary>
internal abstract class SsdScanScenario : KernelScenario
{
    protected const long L = 20;
    private const long P = 72;

    /// <summary>States in one slice of shared memory, and in several.</summary>
    protected const long FewStates = 8, OneSlice = 40, TwoSlices = 96, SeveralSlices = 136, AllSlices = 200, OddDistances = 72;

    /// <summary>States that fill a tile, and all that a kernel holds.</summary>
    protected const long OneTile = 64, AllTiles = 256;

    public override bool Owns(string kernel) => KernelSources.Current.Variants[File].Any(variant => kernel.Contains(variant.Split('<')[0], StringComparison.Ordinal));

    private static SsdScanInputs Inputs(long states, long chunk, long heads, long length)
    {
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(seed)).To(DType.BFloat16).To(DType.Float32);
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, Normal(5, heads)), -1);
        return new(Normal(1, 1, length, heads, P), Normal(2, 1, length, heads), A, Normal(3, 1, length, 1, states), Normal(4, 1, length, 1, states), Normal(6, heads, P), Normal(7, 1, length, heads, P), null, null, new SsdScanOptions(ChunkLength: chunk));
    }

    /// <summary>Runs on the CPU, then in 16 bits or floats on an emulated device, and compares.</summary>
    protected static void Compare(EmulatorOptions options, long states, Func<SsdScanInputs, Tensor[]> run, long chunk = 16, long heads = 2, DType type = DType.BFloat16, long length = L)
    {
        using TensorScope scope = TensorScope.Enter();
        SsdScanInputs x = Inputs(states, chunk, heads, length);
        float[][] want = [.. run(x).Select(tensor => tensor.ToArray<float>())];
        using var driver = new EmulatedCudaDriver(options);
        using CudaDevice device = Devices.OpenEmulated(driver);
        Tensor Narrow(Tensor tensor) => tensor.To(device).To(type);
        double tolerance = type == DType.BFloat16 ? 8 * Close.BFloat16Epsilon : 1e-5;
        // With as many states, x has odd distances: it comes by single elements while dx, in its place, goes by many, and other threads meet.
        Tensor wide = Tensor.Empty([1, length, heads, P + 1], type, device), narrow = Narrow(x.X);
        if (states == OddDistances) ZEngine.Ops.Copy(narrow, wide.Slice(3, 0, P));
        Tensor[] results = run(x with { X = states == OddDistances ? wide.Slice(3, 0, P) : narrow, Dt = Narrow(x.Dt), A = x.A.To(device), B = Narrow(x.B), C = Narrow(x.C), D = x.D!.To(device), Z = Narrow(x.Z!) });
        for (int k = 0; k < want.Length; k++)
        {
            float[] got = results[k].To(DType.Float32).ToArray<float>();
            double scale = Math.Sqrt(want[k].Average(w => (double)w * w));
            for (int i = 0; i < got.Length; i++)
                if (!(Math.Abs(want[k][i] - got[i]) <= tolerance * (scale + Math.Abs(want[k][i])))) Assert.Fail($"result {k} at {i}: got {got[i]:R}, want {want[k][i]:R}");
        }
        Assert.Empty(driver.Faults);
    }

    /// <summary>Of the states that the CPU keeps those that a device keeps of one sequence.</summary>
    protected static Tensor[] Kept(SsdScanInputs x, Func<SsdScanInputs, Tensor[]> run)
    {
        const long every = SsdPlan.ChunksOfBorder;
        Tensor[] results = run(x);
        if (x.X.Device == Device.Cpu)
            results[2] = ZEngine.Ops.Concat(0, [.. Enumerable.Range(0, (int)results[2].Shape[0]).Where(chunk => chunk % every == 0).Select(chunk => results[2].Slice(0, chunk, 1))]);
        return results;
    }

    /// <summary>As <see cref="Convolved"/>, with a norm's weight and the squares before it.</summary>
    protected static Tensor[] Weighted(SsdScanInputs x, DType type = DType.BFloat16)
    {
        Tensor squares = Tensor.Empty([1, L, x.X.Backend.SsdSquares(x)], DType.Float32, x.X.Device), weight = ZEngine.Ops.RandomNormal([x.X.Shape[2] * P], Device.Cpu, new RandomStream(12)).To(x.X.Device);
        return [.. Convolved(x, new SsdGate(weight, squares), type), ZEngine.Ops.Sum(squares, 2)];
    }

    /// <summary>As <see cref="Forward"/>, of x that passes a convolution: on its way into the scan, or on the CPU before, rounded to the device's type. Also the convolution's last inputs, and what it made.</summary>
    protected static Tensor[] Convolved(SsdScanInputs x, DType type = DType.BFloat16) => Convolved(x, null, type);

    private static Tensor[] Convolved(SsdScanInputs x, SsdGate? gate, DType type)
    {
        long inner = x.X.Shape[2] * P, taps = 4;
        Tensor Float(ulong seed, params ReadOnlySpan<long> shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(seed)).To(x.X.Device);
        Tensor convolved = Tensor.Empty([1, L, inner], x.X.DType, x.X.Device), last = Tensor.Empty([1, taps - 1, inner], DType.Float32, x.X.Device);
        var convolution = new CausalConv1dInputs(x.X.Reshape(1, L, inner), Float(13, inner, taps), Float(14, inner), Float(15, 1, taps - 1, inner), HasSilu: true, null);
        if (x.X.Device != Device.Cpu) return [.. Forward(x, gate, new SsdInput(convolution, last, convolved)), last, convolved];
        x.X.Backend.CausalConv1dForward(convolution, convolved, last);
        convolved = convolved.To(type).To(DType.Float32);
        return [.. Forward(x with { X = convolved.Reshape(x.X.Shape.ToArray()) }, gate), last, convolved];
    }

    /// <summary>y, final state, states at borders and y before the gate.</summary>
    protected static Tensor[] Forward(SsdScanInputs x) => Forward(x, null);

    private static Tensor[] Forward(SsdScanInputs x, SsdGate? gate, SsdInput? input = null)
    {
        Tensor y = Tensor.EmptyLike(x.X), ungated = Tensor.EmptyLike(x.X), final = Tensor.Empty([1, x.X.Shape[2], P, x.B.Shape[3]], DType.Float32, x.X.Device), states = x.X.Backend.SsdStates(x);
        x.X.Backend.SsdScanForward(x, y, final, states, ungated, gate, input);
        return [y, final, states, ungated];
    }
}

/// <summary>kernels/SsdScanForward.cu.</summary>
internal sealed class SsdScanForwardScenario : SsdScanScenario
{
    public override string File => "SsdScanForward.cu";

    public override void Run(EmulatorOptions options)
    {
        Compare(options, OneTile, x => Kept(x, Forward));
        Compare(options, AllTiles, x => Kept(x, of => Weighted(of)), chunk: 8);            // so many chunks that states go out behind y
        Compare(options, OneSlice, x => Kept(x, of => Convolved(of)));
        Compare(options, OneSlice, x => Kept(x, Forward), chunk: 1);   // so many chunks that they are walked in segments
    }
}

/// <summary>kernels/SsdScanForwardFloat.cu.</summary>
internal sealed class SsdScanForwardFloatScenario : SsdScanScenario
{
    public override string File => "SsdScanForwardFloat.cu";

    public override void Run(EmulatorOptions options)
    {
        Compare(options, OneSlice, x => Kept(x, Forward), chunk: 8, type: DType.Float32);
        Compare(options, AllSlices, x => Kept(x, of => Weighted(of, DType.Float32)), type: DType.Float32);
        Compare(options, OneSlice, x => Kept(x, of => Convolved(of, DType.Float32)), type: DType.Float32);
    }
}

/// <summary>The kernels of the backward pass.</summary>
internal abstract class SsdScanBackwardScenario(string file) : SsdScanScenario
{
    public override string File => file;

    protected static void Backward(EmulatorOptions options, long states, long chunk = 16, long heads = 2, DType type = DType.BFloat16, long length = L)
    {
        Compare(options, states, x =>
        {
            // Each device from its own forward pass: what the CPU leaves depends on the width of its vectors.
            Tensor[] forward = Forward(x);
            Tensor dy = ZEngine.Ops.RandomNormal(x.X.Shape, Device.Cpu, new RandomStream(11)).To(DType.BFloat16).To(x.X.Device).To(x.X.DType);
            SsdScanInputs d = x.EmptyLike();
            x.X.Backend.SsdScanBackward(x, forward[2], forward[3], dy, null, d);
            return [d.X, d.Dt, d.A, d.B, d.C, d.D!, d.Z!];
        }, chunk, heads, type, length);
    }
}

/// <summary>kernels/SsdScanBackward.cu.</summary>
internal sealed class SsdScanSweepBackwardScenario() : SsdScanBackwardScenario("SsdScanBackward.cu")
{
    public override IEnumerable<Survivor> Survivors =>
        [
            new("ssd_scan_backward", "the turn is seen before the sums", "seeing the turn orders what came before it here; on a GPU the fence does that"),
            new("ssd_scan_backward", "this warp's turn has come", "a barrier of the block follows"),
        ];

    public override void Run(EmulatorOptions options)
    {
        Backward(options, OneSlice, heads: 5);                // two blocks that take turns, dS in shared and in global memory, and B of the chunk before kept
        Backward(options with { Architecture = 86 }, OneSlice);                            // which has no shared memory for that
        Backward(options with { Architecture = 86 }, OddDistances, heads: 5);              // nor for any dS
        Backward(options with { Architecture = 86 }, TwoSlices);                           // the same with x by copies
        Backward(options with { Architecture = 86 }, SeveralSlices, heads: 5);             // nor for B and C of all states: two passes
    }
}

/// <summary>kernels/SsdScanBackward.cu with up to 256 states in registers, and with tiles of floats.</summary>
internal sealed class SsdScanWideSweepBackwardScenario() : SsdScanBackwardScenario("SsdScanBackward.cu")
{
    public override void Run(EmulatorOptions options)
    {
        Backward(options, AllSlices, heads: 5);
        Backward(options with { Architecture = 86 }, OneSlice, chunk: 33, heads: 5, type: DType.Float32, length: 34);         // B of the chunk before comes in two halves
    }
}

/// <summary>kernels/SsdScanStateBackward.cu.</summary>
internal sealed class SsdScanStateBackwardScenario() : SsdScanBackwardScenario("SsdScanStateBackward.cu")
{
    public override void Run(EmulatorOptions options)
    {
        // So many chunks that they are walked in segments.
        Backward(options, OneSlice, chunk: 1);
        Backward(options, FewStates, chunk: 1, heads: 1, type: DType.Float32, length: 16);
    }
}

/// <summary>kernels/SsdScanSumBackward.cu.</summary>
internal sealed class SsdScanSumBackwardScenario() : SsdScanBackwardScenario("SsdScanSumBackward.cu")
{
    public override void Run(EmulatorOptions options) => Backward(options, OneSlice);
}
