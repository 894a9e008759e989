using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Ops;

/// <summary>A step in place is the convolution and the scan one after the other; slots may stand anywhere; one launch that touches the states once.</summary>
public sealed class StateUpdateTests
{
    private const long H = 4, P = 40, G = 2, N = 12, K = 4, Width = H * P + 2 * G * N;

    public static TheoryData<string> OpDevices => [.. Devices.OpNames];

    /// <summary>The operands of a layer, and what it has remembered of three sequences.</summary>
    private sealed class Layer(Device device, DType type, long p = P, long n = N, long taps = K)
    {
        public long Channels { get; } = H * p + 2 * G * n;
        public Tensor A { get; } = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, Random(device, 1, H)), -1);
        public Tensor D { get; } = Random(device, 2, H);
        public Tensor DtBias { get; } = Random(device, 3, H);
        public Tensor Weight { get; } = Random(device, 4, H * p + 2 * G * n, taps);
        public Tensor Bias { get; } = Random(device, 5, H * p + 2 * G * n);
        public SsdScanOptions Options { get; } = new(MinDelta: 0.1f, MaxDelta: 2);

        public Tensor Convolution { get; } = Random(device, 6, 3, taps - 1, H * p + 2 * G * n);
        public Tensor Scan { get; } = Random(device, 7, 3, H, p, n);

        /// <summary>x, dt and z of a step.</summary>
        public (Tensor X, Tensor Dt, Tensor Z) Step(ulong step) => (Random(device, 10 + step, 3, Channels).To(type), Random(device, 20 + step, 3, H).To(type), Random(device, 30 + step, 3, H * p).To(type));

        /// <summary>Several steps by the ops that return new states.</summary>
        public (Tensor[] Y, Tensor Convolution, Tensor Scan) Unfused(int steps)
        {
            (Tensor convolution, Tensor scan, var ys) = (Convolution, Scan, new Tensor[steps]);
            for (int i = 0; i < steps; i++)
            {
                (Tensor x, Tensor dt, Tensor z) = Step((ulong)i);
                (Tensor mixed, convolution) = ZEngine.Ops.CausalConv1d(x.Reshape(3, 1, Channels), Weight, Bias, hasSilu: true, convolution);
                Tensor[] parts = ZEngine.Ops.Split(mixed, H * p, G * n, G * n);
                (Tensor y, scan) = ZEngine.Ops.SsdScan(
                    parts[0].Reshape(3, 1, H, p), dt.Reshape(3, 1, H), A, parts[1].Reshape(3, 1, G, n), parts[2].Reshape(3, 1, G, n), D, z.Reshape(3, 1, H, p), DtBias, scan, Options);
                ys[i] = y.Reshape(3, H * p);
            }
            return (ys, convolution, scan);
        }

        private static Tensor Random(Device device, ulong stream, params ReadOnlySpan<long> shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(5, stream)).To(device);
    }

    private static float[] Floats(Tensor tensor) => tensor.To(DType.Float32).ToArray<float>();

    [Theory, MemberData(nameof(OpDevices))]
    public void Steps_in_place_equal_convolution_and_scan(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        foreach ((long p, long n, long taps) in (ReadOnlySpan<(long, long, long)>)[(P, N, K), (5, 7, 2), (33, 130, 1), (51, 8, 4)])
        foreach (bool isScattered in (ReadOnlySpan<bool>)[false, true])
        {
            using TensorScope scope = TensorScope.Enter();
            var layer = new Layer(device, type, p, n, taps);
            long[] slots = isScattered ? [6, 0, 3] : [0, 1, 2];
            StateCache cache = StateCache.Zeros(device, isScattered ? 7 : 3, H, p, G, n, taps);
            for (int b = 0; b < 3; b++)
            {
                ZEngine.Ops.Copy(layer.Convolution.Slice(0, b, 1), cache.Convolution.Slice(0, slots[b], 1));
                ZEngine.Ops.Copy(layer.Scan.Slice(0, b, 1), cache.Scan.Slice(0, slots[b], 1));
            }
            (Tensor[] want, Tensor convolution, Tensor scan) = layer.Unfused(3);
            Tensor? table = isScattered ? Tensor.From<int>([6, 0, 3], [3], device) : null;
            for (int i = 0; i < 3; i++)
            {
                (Tensor x, Tensor dt, Tensor z) = layer.Step((ulong)i);
                Tensor y = ZEngine.Ops.StateUpdate(x, dt, layer.A, layer.Weight, cache, layer.Bias, layer.D, layer.DtBias, z, table, layer.Options);
                Assert.Equal(Floats(want[i]), Floats(y));
            }
            for (int b = 0; b < 3; b++)
            {
                Assert.Equal(Floats(convolution.Slice(0, b, 1)), Floats(cache.Convolution.Slice(0, slots[b], 1)));
                Assert.Equal(Floats(scan.Slice(0, b, 1)), Floats(cache.Scan.Slice(0, slots[b], 1)));
            }
            Assert.All(cache.Tickets.ToArray<int>(), ticket => Assert.Equal(0, ticket));
        }
    }

    /// <summary>States of 16 bits: each step is that of the same states as floats, whose new states are rounded, and y is of those before. What a block has of a group changes nothing.</summary>
    [Theory, MemberData(nameof(OpDevices))]
    public void States_of_16_bits_are_rounded_step_by_step(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        foreach (DType states in (ReadOnlySpan<DType>)[DType.BFloat16, DType.Float16])
        foreach ((long p, long n) in (ReadOnlySpan<(long, long)>)[(P, N), (64, 128), (33, 130), (5, 7), (51, 8)])
        foreach (bool isScattered in (ReadOnlySpan<bool>)[false, true])
        {
            using TensorScope scope = TensorScope.Enter();
            var layer = new Layer(device, type, p, n);
            Tensor tickets = Tensor.Zeros([3, G], DType.Int32, device), table = Tensor.From<long>([2, 0, 1], [3], device);
            Tensor narrow = layer.Scan.To(states), inputs = layer.Convolution.Clone();
            for (ulong i = 0; i < 2; i++)
            {
                (Tensor x, Tensor dt, Tensor z) = layer.Step(i);
                var wide = new StateCache(inputs.Clone(), narrow.To(DType.Float32), tickets);
                Tensor Step(StateCache cache) => ZEngine.Ops.StateUpdate(x, dt, layer.A, layer.Weight, cache, layer.Bias, layer.D, layer.DtBias, z, isScattered ? table : null, layer.Options);
                float[] want = Floats(Step(wide)), got = Floats(Step(new StateCache(inputs, narrow, tickets)));
                Assert.Equal(Floats(wide.Scan.To(states)), Floats(narrow));
                Assert.Equal(Floats(wide.Convolution), Floats(inputs));
                // Lanes add other neighbours, and y is rounded to its type.
                double scale = want.Max(Math.Abs), bound = n / (double)(1 << 23);
                for (int k = 0; k < want.Length; k++) Assert.True(Math.Abs(want[k] - got[k]) <= bound * scale + Unit(type) * Math.Abs(want[k]), $"{states} {p} {n} at {k}: {got[k]:R}, as floats {want[k]:R}");
            }
        }
    }

    private static double Unit(DType type) => type == DType.Float32 ? 0 : type == DType.Float16 ? 1.0 / 1024 : 1.0 / 128;

    /// <summary>Blocks of one unit and of several: the same bits.</summary>
    [Fact]
    public void Units_of_a_block_change_no_bit()
    {
        float[][] of = [Results(1), Results(132)];
        Assert.Equal(of[0], of[1]);

        static float[] Results(int multiprocessors)
        {
            using var driver = new EmulatedCudaDriver(new EmulatorOptions { Multiprocessors = multiprocessors });
            using CudaDevice device = Devices.OpenEmulated(driver);
            using TensorScope scope = TensorScope.Enter();
            var layer = new Layer(device, DType.BFloat16, 200, 64);      // 14 units of a group
            var cache = new StateCache(layer.Convolution, layer.Scan.To(DType.BFloat16), Tensor.Zeros([3, G], DType.Int32, device));
            (Tensor x, Tensor dt, Tensor z) = layer.Step(0);
            return [.. Floats(ZEngine.Ops.StateUpdate(x, dt, layer.A, layer.Weight, cache, layer.Bias, layer.D, layer.DtBias, z)), .. Floats(cache.Scan), .. Floats(cache.Convolution)];
        }
    }

    [Theory, MemberData(nameof(OpDevices))]
    public void An_idle_sequence_gets_nothing_and_changes_nothing(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        using TensorScope scope = TensorScope.Enter();
        var layer = new Layer(device, type);
        var cache = new StateCache(layer.Convolution, layer.Scan, Tensor.Zeros([3, G], DType.Int32, device));
        (Tensor x, Tensor dt, _) = layer.Step(0);
        StateSlots.IdleChangeNothing(device, layer.Convolution, layer.Scan, slots => ZEngine.Ops.StateUpdate(x, dt, layer.A, layer.Weight, cache, slots: slots));
    }

    [Fact]
    public void A_slot_that_does_not_exist_is_an_error() => StateSlots.UnknownIsAnError((device, slots) =>
    {
        var layer = new Layer(device, DType.Float32);
        (Tensor x, Tensor dt, _) = layer.Step(0);
        return ZEngine.Ops.StateUpdate(x, dt, layer.A, layer.Weight, new StateCache(layer.Convolution, layer.Scan, Tensor.Zeros([3, G], DType.Int32, device)), slots: slots);
    });

    /// <summary>Slots whose states stand beyond 2³¹ elements, in memory that nothing touches between them.</summary>
    [Fact]
    public void Slots_beyond_two_to_the_31_elements_are_found()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long slots = (1L << 31) / (H * P * N) + 3, taps = 16;
        var layer = new Layer(counted.Device, DType.BFloat16, taps: taps);
        var near = new StateCache(layer.Convolution, layer.Scan, Tensor.Zeros([3, G], DType.Int32, counted.Device));
        var far = new StateCache(Tensor.Empty([slots, taps - 1, Width], DType.Float32, counted.Device), Tensor.Empty([slots, H, P, N], DType.Float32, counted.Device), Tensor.Zeros([slots, G], DType.Int32, counted.Device));
        Assert.True(far.Convolution.Count > 1L << 31);
        (Tensor x, Tensor dt, Tensor z) = layer.Step(0);
        StateSlots.FarAreFound(counted.Device, (near.Convolution, near.Scan), (far.Convolution, far.Scan),
            () => ZEngine.Ops.StateUpdate(x, dt, layer.A, layer.Weight, near, z: z), slots => ZEngine.Ops.StateUpdate(x, dt, layer.A, layer.Weight, far, z: z, slots: slots));
    }

    [Theory, InlineData(DType.Float32), InlineData(DType.BFloat16)]
    public void Traffic_equals_the_header(DType states)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long half = 2, single = 4, batch = 3, p = 64, slices = 2, n = 64, width = H * p + 2 * G * n;   // so few units that each has a block
        var layer = new Layer(counted.Device, DType.BFloat16, p, n);
        var cache = new StateCache(layer.Convolution, layer.Scan.To(states), Tensor.Zeros([3, G], DType.Int32, counted.Device));
        (Tensor x, Tensor dt, Tensor z) = layer.Step(0);
        Tensor slots = Tensor.From<int>([2, 0, 1], [3], counted.Device);
        counted.Launches();
        ZEngine.Ops.StateUpdate(x, dt, layer.A, layer.Weight, cache, layer.Bias, layer.D, layer.DtBias, z, slots);
        LaunchProfile[] launches = counted.Launches();
        CountedDevice.Are(["state_update"], launches);
        // A channel's convolution: K − 1 inputs, K taps, its bias and x. Each block convolves its channels and B and C, the last of a group moves the inputs of B and C.
        const long channel = (K - 1 + K + 1) * single + half, blocks = batch * H * slices;
        // Every thread asks for the slot, one for dt, its bias and A; of each channel one lane for the gate and the skip. Those that move inputs ask for the slot again. A ticket is asked for once a block.
        long read = blocks * (32 + 2 * n) * channel + batch * G * 2 * n * ((K - 2) * single + half) + batch * H * p * n * states.Size + (blocks + batch * G) * 256 * single + blocks * (half + 2 * single) + batch * H * p * (half + single);
        long written = batch * (K - 1) * width * single + batch * H * p * (n * states.Size + half);
        CountedDevice.Moved(read, written, launches[0]);
        Assert.Equal(blocks, launches[0][InstructionClass.Atomic].Threads);
    }
}
