using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Tests.Ops;
using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Emulator;

/// <summary>kernels/AttentionForward.cu and kernels/AttentionBackward.cu: what they load, multiply and otherwise do against the count by hand, the laws that hold bit for bit, and places beyond 2³¹ elements.</summary>
public sealed class AttentionKernelTests
{
    private const long Half = 2, Float = 4;

    private static AttentionInputs Inputs(CountedDevice counted, long L, long S, long H, long G, long P, AttentionOptions options)
    {
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(DType.BFloat16);
        return new(Normal(1, 1, L, H, P), Normal(2, 1, S, G, P), Normal(3, 1, S, G, P), 1 / MathF.Sqrt(P), options);
    }

    private static LaunchProfile Forward(CountedDevice counted, long L, long S, long H, long G, long P, AttentionOptions options)
    {
        using TensorScope scope = TensorScope.Enter();
        AttentionInputs x = Inputs(counted, L, S, H, G, P, options);
        counted.Launches();
        ZEngine.Ops.Attention(x.Q, x.K, x.V, options);
        LaunchProfile[] launches = counted.Launches();
        CountedDevice.Are(["attention_forward"], launches);
        return launches[0];
    }

    private static LaunchProfile[] Backward(CountedDevice counted, long L, long S, long H, long G, long P, AttentionOptions options)
    {
        using Tape tape = Tape.Begin();
        AttentionInputs x = Inputs(counted, L, S, H, G, P, options);
        foreach (Tensor tensor in (ReadOnlySpan<Tensor>)[x.Q, x.K, x.V]) tape.Watch(tensor);
        Tensor o = ZEngine.Ops.Attention(x.Q, x.K, x.V, options).O, dO = counted.Normal(4, 1, L, H, P).To(DType.BFloat16);
        counted.Launches();
        tape.Backward(o, dO);
        LaunchProfile[] launches = counted.Launches();
        CountedDevice.Are(["attention_delta_backward", "attention_backward"], launches);
        return launches;
    }

    /// <summary>Tiles of keys that tiles of queries see.</summary>
    private static long Tiles(long L, long S, int rows, int keys, AttentionOptions options)
    {
        long tiles = 0;
        for (long first = 0; first < L; first += rows)
        {
            long last = Math.Min(first + rows, L) - 1, high = options.IsCausal ? Math.Clamp(last + S - L + 1, 0, S) : S;
            long low = options.Window > 0 ? Math.Max(0, first + S - L + 1 - options.Window) : 0;
            tiles += Math.Max(0, (high + keys - 1) / keys - low / keys);
        }
        return tiles;
    }

    /// <summary>What a step of a loop costs besides products, from two lengths: what comes before and after is the same.</summary>
    private static double OthersPerProduct(LaunchProfile shorter, LaunchProfile longer)
    {
        long products = longer[InstructionClass.Matrix].Executions - shorter[InstructionClass.Matrix].Executions;
        return (double)(longer.Total.Executions - shorter.Total.Executions - products) / products;
    }

    private static void HasNoConflicts(LaunchProfile launch)
    {
        InstructionCounter matrix = launch[InstructionClass.MatrixLoad];
        Assert.Equal(4 * matrix.Executions, matrix.Wavefronts);
        InstructionCounter store = launch[InstructionClass.SharedStore];
        Assert.True(store.Wavefronts <= store.Executions, $"{store.Wavefronts} wavefronts of {store.Executions} stores");
    }

    [Theory]
    [InlineData(32, 10.1), InlineData(64, 4.0), InlineData(80, 3.7), InlineData(96, 3.5), InlineData(128, 2.1), InlineData(160, 3.3), InlineData(192, 2), InlineData(224, 2.6), InlineData(256, 1.7)]
    public void A_forward_pass_multiplies_what_the_formula_says_and_little_else(int headSize, double most)
    {
        using var counted = new CountedDevice();
        var full = new AttentionOptions(IsCausal: false);
        int rows = AttentionPlan.Forward(new(1, 128, 256, 1, 1, headSize, false), DType.BFloat16, 80).Rows;
        LaunchProfile shorter = Forward(counted, rows, 256, 1, 1, headSize, full), longer = Forward(counted, rows, 512, 1, 1, headSize, full);
        Assert.Equal(4L * rows * 512 * headSize, longer.MatrixFlops);
        // q, k, v once; o and lse once.
        CountedDevice.Moved(Half * headSize * (rows + 2 * 512), rows * (headSize * Half + Float), longer);
        HasNoConflicts(longer);
        Assert.Equal(0, longer[InstructionClass.Atomic].Executions);
        Assert.InRange(OthersPerProduct(shorter, longer), 0, most);
        TestContext.Current.SendDiagnosticMessage($"forward d{headSize}: {OthersPerProduct(shorter, longer):F2} others per product");
    }

    /// <summary>
    /// Cycles of a multiprocessor that the useful products need, as a share of the cycles that the slot needs which is taken longest: the tensor cores, the issue of four
    /// instructions a cycle, the exponentials, 16 lanes a cycle, or shared memory, 128 bytes a cycle. A product of 4096 FLOP takes a tensor core 8 cycles on sm_80, 16 on
    /// sm_86 and sm_89; on sm_90 mma.sync reaches 62 % of the peak: 6.5.
    /// </summary>
    [Theory]
    [InlineData(80, 8), InlineData(86, 16), InlineData(89, 16), InlineData(90, 6.5)]
    public void Useful_products_take_their_share_of_the_slots(int architecture, double cycles)
    {
        using var counted = new CountedDevice(architecture);
        const long L = 512, P = 128;
        foreach (AttentionOptions options in (AttentionOptions[])[new(), new(IsCausal: false)])
        {
            LaunchProfile launch = Forward(counted, L, L, 1, 1, P, options);
            double useful = 4.0 * P * (options.IsCausal ? L * (L + 1) / 2 : L * L) / 4096;
            double products = cycles / 4 * launch[InstructionClass.Matrix].Executions, issue = launch.Total.Executions / 4.0, exponentials = 2 * launch[InstructionClass.Transcendental].Executions;
            double shared = launch[InstructionClass.MatrixLoad].Wavefronts + launch[InstructionClass.SharedStore].Wavefronts + launch[InstructionClass.SharedLoad].Wavefronts + launch[InstructionClass.AsyncCopy].Bytes / 128.0;
            double share = cycles / 4 * useful / new[] { products, issue, exponentials, shared }.Max();
            TestContext.Current.SendDiagnosticMessage($"sm_{architecture}{(options.IsCausal ? " causal" : "")}: {share:P0} of the slots; products {products:F0}, issue {issue:F0}, exponentials {exponentials:F0}, shared {shared:F0}");
            Assert.InRange(share, 0.7, 1);
            HasNoConflicts(launch);
        }
        AttentionOptions full = new(IsCausal: false);
        double others = OthersPerProduct(Forward(counted, 128, 256, 1, 1, P, full), Forward(counted, 128, 512, 1, 1, P, full));
        TestContext.Current.SendDiagnosticMessage($"sm_{architecture}: {others:F2} others per product");
        Assert.InRange(others, 0, 2.5);
    }

    /// <summary>Of what is read again the L2 cache has the rest: each operand counted once, against q, k, v and o once, and twice that for the backward pass.</summary>
    [Theory]
    [InlineData(80, 1), InlineData(86, 1), InlineData(89, 1), InlineData(90, 1), InlineData(80, 4), InlineData(90, 8)]
    public void Bytes_from_memory_are_near_the_least(int architecture, int heads)
    {
        using var counted = new CountedDevice(architecture);
        const long L = 256, P = 128, X = Half * L * P;
        var full = new AttentionOptions(IsCausal: false);
        using Tape tape = Tape.Begin();
        AttentionInputs x = Inputs(counted, L, L, heads, 1, P, full);
        foreach (Tensor tensor in (ReadOnlySpan<Tensor>)[x.Q, x.K, x.V]) tape.Watch(tensor);
        counted.Launches();
        Tensor o = ZEngine.Ops.Attention(x.Q, x.K, x.V, full).O, dO = counted.Normal(4, 1, L, heads, P).To(DType.BFloat16);
        LaunchProfile forward = counted.Launches().Single(launch => launch.Kernel.Contains("attention_forward", StringComparison.Ordinal));
        double least = (2 * heads + 2) * X + Float * L * heads;
        // Both tiles of a head's queries read all keys and values. Besides o goes out a byte of what each of its elements lost.
        Assert.Equal(heads * (X + 2 * 2 * X), forward.GlobalBytesRead);
        Assert.Equal(heads * (X + X / 2 + Float * L), forward.GlobalBytesWritten);
        double forwardShare = (heads * X + 2 * X + forward.GlobalBytesWritten) / least;
        Assert.InRange(forwardShare, 1, 1.3);
        tape.Backward(o, dO);
        LaunchProfile[] backward = counted.Launches();
        AttentionPlan plan = AttentionPlan.Backward(new(1, L, L, heads, 1, (int)P, false), DType.BFloat16, counted.Device.SharedBytesPerBlock);
        // Queries and their gradients pass every tile of keys; the sums of dq, in floats, are written and read between one and the next.
        long tiles = L / plan.Keys, again = heads * ((tiles - 1) * 2 * X + (tiles - 2) * 2 * 2 * X);
        double backwardShare = (backward.Sum(launch => launch.GlobalBytesRead + launch.GlobalBytesWritten) - again) / (2 * least);
        Assert.InRange(backwardShare, 1, 2.5);
        TestContext.Current.SendDiagnosticMessage($"sm_{architecture}, {heads} heads of a group: bytes of the forward pass {forwardShare:F2}, of the backward pass {backwardShare:F2} of the least");
    }

    /// <summary>What other architectures have instances of their own for.</summary>
    [Theory]
    [InlineData(86, 104), InlineData(86, 184), InlineData(90, 128), InlineData(90, 248)]
    public void Instances_for_other_architectures_equal_oracle(int architecture, int headSize)
    {
        using var counted = new CountedDevice(architecture);
        OpCase c = OpData.Case("attention", $"sm_{architecture}, {headSize} channels").With("causal", true)
            .Normal("q", [1, 80, 2, headSize]).Normal("k", [1, 90, 1, headSize]).Normal("v", [1, 90, 1, headSize]).Build("o");
        EngineOp.Compare(new OracleReference(c.Quantize(x => (float)(BFloat16)x), DType.BFloat16), counted.Device, DType.BFloat16);
    }

    [Fact]
    public void Work_outside_the_mask_is_not_done()
    {
        using var counted = new CountedDevice();
        const long L = 384, S = 512, P = 64;
        foreach (AttentionOptions options in (AttentionOptions[])[new(), new(Window: 70), new(IsCausal: false)])
        {
            LaunchProfile forward = Forward(counted, L, S, 1, 1, P, options);
            long tiles = Tiles(L, S, 128, 64, options);
            Assert.Equal(tiles * 4 * 128 * 64 * P, forward.MatrixFlops);
            Assert.Equal(Half * P * (L + 2 * 64 * tiles), forward.GlobalBytesRead);
            LaunchProfile backward = Backward(counted, L, S, 1, 1, P, options)[1];
            Assert.Equal(Tiles(L, S, 64, 128, options) * 10 * 64 * 128 * P, backward.MatrixFlops);
        }
        // Sequences of 128 steps see nothing of each other.
        var packed = new AttentionOptions(Layout: new SequenceLayout(0, 128, 256, 384));
        Assert.Equal(3 * Tiles(128, 128, 128, 64, packed) * 4 * 128 * 64 * P, Forward(counted, 384, 384, 1, 1, P, packed).MatrixFlops);
    }

    [Fact]
    public void Heads_of_a_group_share_a_tile_where_queries_are_few()
    {
        using var counted = new CountedDevice();
        const long L = 16, S = 256, P = 64;
        LaunchProfile forward = Forward(counted, L, S, 8, 1, P, new AttentionOptions(IsCausal: false));
        Assert.Equal(4 * 128 * S * P, forward.MatrixFlops);
        Assert.Equal(Half * P * (L * 8 + 2 * S), forward.GlobalBytesRead);
    }

    [Theory]
    [InlineData(64, 5.4), InlineData(80, 5.3), InlineData(128, 3.6), InlineData(224, 4.7)]
    public void A_backward_pass_is_two_launches_of_five_products_a_tile(int headSize, double most)
    {
        using var counted = new CountedDevice();
        var full = new AttentionOptions(IsCausal: false);
        const long L = 128, S = 256;
        AttentionPlan plan = AttentionPlan.Backward(new(1, L, S, 1, 1, headSize, false), DType.BFloat16, 163 << 10);
        LaunchProfile[] shorter = Backward(counted, L, S, 1, 1, headSize, full), longer = Backward(counted, 2 * L, S, 1, 1, headSize, full);
        Assert.Equal(10 * 2 * L * S * headSize, longer[1].MatrixFlops);
        HasNoConflicts(longer[1]);
        // A ticket for each block; no sum is an atomic. Eight lanes ask for the lse of a row.
        Assert.Equal(S / plan.Keys, longer[1][InstructionClass.Atomic].Executions);
        long stats = 2 * L * 2 * Float, row = headSize * Half, sums = (S / plan.Keys - 1) * 2 * L * headSize * Float;
        CountedDevice.Moved(2 * L * (2 * row + headSize) + 8 * 2 * L * Float, stats + (2 * L / plan.Rows + 1) * Float, longer[0]);
        Assert.Equal((S * 2 + 2 * L) * row + sums + (S / plan.Keys - 1) * (2 * L / plan.Rows) * Float, longer[1].GlobalBytesWritten);
        Assert.InRange(OthersPerProduct(shorter[1], longer[1]), 0, most);
        TestContext.Current.SendDiagnosticMessage($"backward d{headSize}: {OthersPerProduct(shorter[1], longer[1]):F2} others per product");
    }

    [Theory]
    [InlineData(DType.Float32), InlineData(DType.BFloat16), InlineData(DType.Float16)]
    public void Packed_sequences_give_the_bits_of_separate_ones(DType type)
    {
        using var counted = new CountedDevice();
        long[] ends = [0, 1, 67, 200];
        const long H = 2, P = 24;
        float[][] Run(Tensor q, Tensor k, Tensor v, Tensor dO, SequenceLayout? layout)
        {
            using Tape tape = Tape.Begin();
            foreach (Tensor tensor in (ReadOnlySpan<Tensor>)[q, k, v]) tape.Watch(tensor);
            (Tensor o, Tensor lse) = ZEngine.Ops.Attention(q, k, v, new AttentionOptions(Layout: layout));
            tape.Backward(o, dO);
            using NoGradient pause = Tape.NoGrad();
            return [.. ((Tensor[])[o, lse, tape.GradientOf(q), tape.GradientOf(k), tape.GradientOf(v)]).Select(tensor => tensor.To(DType.Float32).ToArray<float>())];
        }
        using TensorScope scope = TensorScope.Enter();
        Tensor[] x = [.. Enumerable.Range(1, 4).Select(seed => counted.Normal((ulong)seed, 1, 200, H, P).To(type))];
        float[][] packed = Run(x[0], x[1], x[2], x[3], new SequenceLayout(ends));
        for (int i = 0; i + 1 < ends.Length; i++)
        {
            Tensor[] part = [.. x.Select(tensor => tensor.Slice(1, ends[i], ends[i + 1] - ends[i]).Clone())];
            float[][] separate = Run(part[0], part[1], part[2], part[3], null);
            for (int k = 0; k < packed.Length; k++)
            {
                int row = packed[k].Length / 200;
                Assert.Equal(separate[k], packed[k][((int)ends[i] * row)..((int)ends[i + 1] * row)]);
            }
        }
    }

    /// <summary>Rows of the batch, tokens or heads so far apart that q, k and v reach beyond 2³¹ elements, most of which nobody ever touches.</summary>
    [Theory]
    [InlineData(DType.BFloat16, 2, 3, 1), InlineData(DType.BFloat16, 1, 2, 1), InlineData(DType.BFloat16, 1, 1, 2), InlineData(DType.Float32, 1, 2, 1)]
    public void Offsets_have_64_bits(DType type, long B, long L, long H)
    {
        using var counted = new CountedDevice();
        const long far = 1L << 31, P = 8;
        Tensor Spread(Tensor near)
        {
            long inner = near.Count / 2;
            Tensor memory = Tensor.Empty([2, far], type, counted.Device);
            ZEngine.Ops.Copy(near.Reshape(2, inner), memory.Slice(1, 0, inner));
            return memory.Slice(1, 0, inner).Reshape(near.Shape.ToArray());
        }
        float[][] Run(Tensor[] x)
        {
            using Tape tape = Tape.Begin();
            foreach (Tensor tensor in x) tape.Watch(tensor);
            Tensor o = ZEngine.Ops.Attention(x[0], x[1], x[2]).O;
            tape.Backward(o, counted.Normal(9, B, L, H, P).To(type));
            return [.. ((Tensor[])[o, tape.GradientOf(x[0]), tape.GradientOf(x[1]), tape.GradientOf(x[2])]).Select(tensor => tensor.To(DType.Float32).ToArray<float>())];
        }
        using TensorScope scope = TensorScope.Enter();
        Tensor[] near = [.. Enumerable.Range(1, 3).Select(seed => counted.Normal((ulong)seed, B, L, H, P).To(type))], spread = [.. near.Select(Spread)];
        Assert.All(spread, tensor => Assert.True(tensor.Strides[..3].ToArray().Max() >= far));
        Assert.Equal(Run(near), Run(spread));
    }

    [Fact]
    public void The_plan_fits_each_architecture()
    {
        AttentionSizes Of(int P, int H = 8, int G = 8, long L = 4096) => new(4, L, L, H, G, P, false);
        // Two blocks of 128 columns a multiprocessor: 64 KiB of 164, 48 KiB of 100.
        Assert.Equal((128, 64, 64, 64 << 10), Shape(AttentionPlan.Forward(Of(128), DType.BFloat16, 80)));
        Assert.Equal((128, 64, 32, 48 << 10), Shape(AttentionPlan.Forward(Of(128), DType.BFloat16, 86)));
        foreach (int architecture in (ReadOnlySpan<int>)[80, 86, 89, 90])
        {
            int shared = architecture switch { 80 => 163 << 10, 90 => 227 << 10, _ => 99 << 10 };
            foreach (int size in (ReadOnlySpan<int>)[3, 16, 32, 64, 72, 80, 96, 128, 160, 224, 256])
            foreach (DType type in (ReadOnlySpan<DType>)[DType.Float32, DType.BFloat16, DType.Float16])
            {
                Assert.InRange(AttentionPlan.Forward(Of(size), type, architecture).SharedBytes, 1, shared);
                Assert.InRange(AttentionPlan.Backward(Of(size), type, shared).SharedBytes, 1, shared);
                // Tiles in 16 bits are of the columns that there are, 80 and 224 among them.
                if (type == DType.Float32) continue;
                Assert.InRange(AttentionPlan.Forward(Of(size), type, architecture).Columns - size, 0, size > 128 ? 31 : 15);
                Assert.InRange(AttentionPlan.Backward(Of(size), type, shared).Columns - Math.Max(size, 17), 0, 15);
            }
        }
        Assert.Equal((80, 224), (AttentionPlan.Forward(Of(80), DType.BFloat16, 90).Columns, AttentionPlan.Forward(Of(224), DType.BFloat16, 90).Columns));
        // Four heads of a group with 17 queries each fill one tile; long sequences fill tiles without that.
        Assert.Equal(4, AttentionPlan.Forward(Of(64, 8, 2, 17), DType.BFloat16, 80).Heads);
        Assert.Equal(1, AttentionPlan.Forward(Of(64, 8, 2), DType.BFloat16, 80).Heads);
        Assert.Equal("Attention: q, k and v have heads of 264 channels, a CUDA device takes at most 256.", Assert.Throws<NotSupportedException>(() => AttentionPlan.Forward(Of(264), DType.BFloat16, 80)).Message);

        static (int, int, int, int) Shape(AttentionPlan plan) => (plan.Rows, plan.Keys, plan.Slice, plan.SharedBytes);
    }
}
