using ZEngine.Emulator;
using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Ops;

/// <summary>A Mamba step in place is convolution, products, norms and scan one after the other; slots may stand anywhere; two launches that touch the states once.</summary>
public sealed class SelectiveStateUpdateTests
{
    public static TheoryData<string> OpDevices => [.. Devices.OpNames];

    /// <summary>The operands of a layer, and what it has remembered of its sequences.</summary>
    private sealed class Layer
    {
        private readonly Device _device;
        private readonly DType _type;
        private readonly long _batch;

        public Layer(Device device, DType type, long batch = 3, long channels = 48, long n = 12, long rank = 5, long taps = 4, long groups = 1, float? epsilon = null, DType? weights = null)
        {
            (_device, _type, _batch, Channels) = (device, type, batch, channels);
            // Without a norm Δ, B and C would grow with the channels.
            Tensor projection = ZEngine.Ops.Scale(Random(1, groups, rank + 2 * n, channels / groups), MathF.Sqrt((float)groups / channels));
            Parameters = new SelectiveStateLayer(
                Random(2, channels, taps), Random(3, channels), projection.To(weights ?? type), Random(4, channels, rank).To(weights ?? type), ZEngine.Ops.Scale(Random(5, channels, n), 0.3f), Random(6, channels), Random(7, channels), epsilon);
            (Convolution, Scan) = (Random(8, batch, taps - 1, channels), Random(9, batch, channels, n));
        }

        public long Channels { get; }
        public SelectiveStateLayer Parameters { get; }
        public Tensor Convolution { get; }
        public Tensor Scan { get; }

        /// <summary>x and z of a step.</summary>
        public (Tensor X, Tensor Z) Step(ulong step) => (Random(20 + step, _batch, Channels).To(_type), Random(40 + step, _batch, Channels).To(_type));

        /// <summary>Several steps by the ops that return new states.</summary>
        public (Tensor[] Y, Tensor Convolution, Tensor Scan) Unfused(int steps)
        {
            SelectiveStateLayer p = Parameters;
            (Tensor convolution, Tensor scan, var ys) = (Convolution, Scan, new Tensor[steps]);
            (long n, long rank, long groups) = (p.LogA.Shape[1], p.DtProjection.Shape[1], p.Projection.Shape[0]);
            long own = Channels / groups;
            for (int i = 0; i < steps; i++)
            {
                (Tensor x, Tensor z) = Step((ulong)i);
                (Tensor u, convolution) = ZEngine.Ops.CausalConv1d(x.Reshape(_batch, 1, Channels), p.Weight, p.Bias, hasSilu: true, convolution);
                (Tensor[] dt, Tensor[] B, Tensor[] C) = (new Tensor[groups], new Tensor[groups], new Tensor[groups]);
                for (int g = 0; g < groups; g++)
                {
                    Tensor[] parts = ZEngine.Ops.Split(EachRow(u.Slice(-1, g * own, own), p.Projection.Select(0, g)), rank, n, n);
                    if (p.NormEpsilon is { } epsilon)
                        for (int k = 0; k < parts.Length; k++)
                        {
                            Tensor ones = Tensor.Empty([parts[k].Shape[^1]], DType.Float32, _device);
                            ZEngine.Ops.Fill(ones, 1);
                            parts[k] = ZEngine.Ops.RmsNorm(parts[k], ones, epsilon);
                        }
                    (dt[g], B[g], C[g]) = (EachRow(parts[0], p.DtProjection.Slice(0, g * own, own)), parts[1].Reshape(_batch, 1, 1, n), parts[2].Reshape(_batch, 1, 1, n));
                }
                (ys[i], scan) = ZEngine.Ops.SelectiveScan(
                    u, ZEngine.Ops.Concat(-1, dt), ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, p.LogA), -1), ZEngine.Ops.Concat(2, B), ZEngine.Ops.Concat(2, C), p.D, z.Reshape(_batch, 1, Channels), p.DtBias, scan);
            }
            return (ys, convolution, scan);
        }

        /// <summary>A product for each sequence: one of many rows may add in another order.</summary>
        private Tensor EachRow(Tensor x, Tensor weight) => ZEngine.Ops.Concat(0, [.. Enumerable.Range(0, (int)_batch).Select(b => ZEngine.Ops.Linear(x.Slice(0, b, 1), weight))]);

        private Tensor Random(ulong stream, params ReadOnlySpan<long> shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(6, stream)).To(_device);
    }

    private static float[] Floats(Tensor tensor) => tensor.To(DType.Float32).ToArray<float>();

    private static void Near(float[] want, float[] got, float share)
    {
        float scale = MathF.Sqrt(want.Average(w => w * w));
        Assert.Equal(want.Length, got.Length);
        for (int i = 0; i < want.Length; i++)
            if (!(Math.Abs(want[i] - got[i]) <= share * (scale + Math.Abs(want[i])))) Assert.Fail($"at {i}: got {got[i]:R}, want {want[i]:R}");
    }

    [Theory, MemberData(nameof(OpDevices))]
    public void Steps_in_place_equal_the_ops_one_after_the_other(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        foreach ((long batch, long channels, long n, long rank, long taps, long groups, float? epsilon) in (ReadOnlySpan<(long, long, long, long, long, long, float?)>)
            [(3, 48, 12, 5, 4, 1, null), (1, 1104, 16, 72, 4, 1, null), (2, 2070, 2, 1, 4, 1, null), (2, 1032, 3, 1, 2, 1, null), (8, 70, 40, 9, 1, 2, null), (2, 96, 16, 8, 4, 1, 1e-5f)])
        foreach (bool isScattered in (ReadOnlySpan<bool>)[false, true])
        {
            using TensorScope scope = TensorScope.Enter();
            var layer = new Layer(device, type, batch, channels, n, rank, taps, groups, epsilon);
            int[] slots = [.. Enumerable.Range(0, (int)batch).Select(b => isScattered ? ((int)batch - b) * 2 : b)];
            var cache = SelectiveStateCache.Zeros(device, isScattered ? 2 * batch + 1 : batch, channels, n, taps);
            for (int b = 0; b < batch; b++)
            {
                ZEngine.Ops.Copy(layer.Convolution.Slice(0, b, 1), cache.Convolution.Slice(0, slots[b], 1));
                ZEngine.Ops.Copy(layer.Scan.Slice(0, b, 1), cache.Scan.Slice(0, slots[b], 1));
            }
            (Tensor[] want, Tensor convolution, Tensor scan) = layer.Unfused(3);
            // The norm adds its squares in another order: a rounding apart.
            Action<float[], float[]> check = epsilon is null ? Assert.Equal : (a, b) => Near(a, b, type == DType.Float32 ? 2e-6f : 2e-2f);
            for (int i = 0; i < 3; i++)
            {
                (Tensor x, Tensor z) = layer.Step((ulong)i);
                Tensor y = ZEngine.Ops.SelectiveStateUpdate(x, layer.Parameters, cache, z, isScattered ? Tensor.From<int>(slots, [batch], device) : null);
                check(Floats(want[i]), Floats(y));
            }
            for (int b = 0; b < batch; b++)
            {
                Assert.Equal(Floats(convolution.Slice(0, b, 1)), Floats(cache.Convolution.Slice(0, slots[b], 1)));
                check(Floats(scan.Slice(0, b, 1)), Floats(cache.Scan.Slice(0, slots[b], 1)));
            }
        }
    }

    /// <summary>A bias, a skip and a gate may be missing, weights may be of another type, and more sequences than a block takes at once change nothing for each.</summary>
    [Theory, MemberData(nameof(OpDevices))]
    public void A_sequence_gets_the_same_bits_alone_and_among_many(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        using TensorScope scope = TensorScope.Enter();
        var layer = new Layer(device, type, batch: 11, weights: DType.Float32);
        SelectiveStateLayer bare = layer.Parameters with { Bias = null, D = null, DtBias = null };
        (Tensor x, _) = layer.Step(0);
        var cache = new SelectiveStateCache(layer.Convolution.Clone(), layer.Scan.Clone());
        float[] all = Floats(ZEngine.Ops.SelectiveStateUpdate(x, bare, cache));
        foreach (int b in (ReadOnlySpan<int>)[0, 7, 10])
        {
            var alone = new SelectiveStateCache(layer.Convolution.Slice(0, b, 1).Clone(), layer.Scan.Slice(0, b, 1).Clone());
            Assert.Equal(all[(int)(b * layer.Channels)..(int)((b + 1) * layer.Channels)], Floats(ZEngine.Ops.SelectiveStateUpdate(x.Slice(0, b, 1), bare, alone)));
            Assert.Equal(Floats(cache.Scan.Slice(0, b, 1)), Floats(alone.Scan));
        }
    }

    [Theory, MemberData(nameof(OpDevices))]
    public void An_idle_sequence_gets_nothing_and_changes_nothing(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        using TensorScope scope = TensorScope.Enter();
        var layer = new Layer(device, type);
        (Tensor x, Tensor z) = layer.Step(0);
        StateSlots.IdleChangeNothing(device, layer.Convolution, layer.Scan, slots => ZEngine.Ops.SelectiveStateUpdate(x, layer.Parameters, new SelectiveStateCache(layer.Convolution, layer.Scan), z, slots));
    }

    [Fact]
    public void A_slot_that_does_not_exist_is_an_error() => StateSlots.UnknownIsAnError((device, slots) =>
    {
        var layer = new Layer(device, DType.Float32);
        return ZEngine.Ops.SelectiveStateUpdate(layer.Step(0).X, layer.Parameters, new SelectiveStateCache(layer.Convolution, layer.Scan), slots: slots);
    });

    /// <summary>Slots whose states stand beyond 2³¹ elements, in memory that nothing touches between them.</summary>
    [Fact]
    public void Slots_beyond_two_to_the_31_elements_are_found()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long channels = 48, n = 12, taps = 16, slots = (1L << 31) / (channels * n) + 3;
        var layer = new Layer(counted.Device, DType.BFloat16, taps: taps);
        var near = new SelectiveStateCache(layer.Convolution, layer.Scan);
        var far = new SelectiveStateCache(Tensor.Empty([slots, taps - 1, channels], DType.Float32, counted.Device), Tensor.Empty([slots, channels, n], DType.Float32, counted.Device));
        Assert.True(far.Convolution.Count > 1L << 31);
        (Tensor x, Tensor z) = layer.Step(0);
        StateSlots.FarAreFound(counted.Device, (near.Convolution, near.Scan), (far.Convolution, far.Scan),
            () => ZEngine.Ops.SelectiveStateUpdate(x, layer.Parameters, near, z), slots => ZEngine.Ops.SelectiveStateUpdate(x, layer.Parameters, far, z, slots));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void Traffic_equals_the_header(long batch)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long half = 2, single = 4, channels = 128, n = 16, rank = 8, taps = 4, rows = rank + 2 * n;
        var layer = new Layer(counted.Device, DType.BFloat16, batch, channels, n, rank, taps);
        (Tensor x, Tensor z) = layer.Step(0);
        counted.Launches();
        ZEngine.Ops.SelectiveStateUpdate(x, layer.Parameters, new SelectiveStateCache(layer.Convolution, layer.Scan), z);
        LaunchProfile[] launches = counted.Launches();
        CountedDevice.Are(["selective_state_project", "selective_state_update"], launches);
        long blocks = batch == 1 ? rows / 8 : (rows + 31) / 32, convolved = batch * channels * (half + (2 * taps - 1 + 1) * single);
        CountedDevice.Moved(blocks * convolved + rows * channels * half, batch * rows * half, launches[0]);
        CountedDevice.Moved(
            convolved + batch * (channels * half + channels * rank * half + channels * (2 * n + 2) * single + channels / 32 * rows * half),
            batch * channels * (half + (taps - 1 + n) * single), launches[1]);
        foreach (LaunchProfile launch in launches) Assert.Equal(0, launch[InstructionClass.Atomic].Executions);
    }
}
