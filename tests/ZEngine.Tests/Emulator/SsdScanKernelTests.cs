using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Interop;
using ZEngine.Tests.Interop;
using ZEngine.Tests.Ops;

namespace ZEngine.Tests.Emulator;

/// <summary>kernels/SsdScan*.cu: what they move and multiply against the count by hand, and places beyond 2³¹ elements.</summary>
public sealed class SsdScanKernelTests
{
    private const long L = 128, H = 2, P = 64, N = 64, Q = 64, Chunks = L / Q, Half = 2, Float = 4;

    /// <summary>A lane of the warp that makes the decays asks for A and the bias of its head.</summary>
    private const long ScalarsOfChunk = 32 * Float * 2;

    private static SsdScanInputs Inputs(CountedDevice counted)
    {
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(DType.BFloat16);
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(5, H)), -1);
        return new(Normal(1, 1, L, H, P), Normal(2, 1, L, H), A, Normal(3, 1, L, 1, N), Normal(4, 1, L, 1, N), counted.Normal(6, H, P), Normal(7, 1, L, H, P), counted.Normal(8, H), null, new SsdScanOptions());
    }

    private static (Tensor Y, Tensor FinalState) Scan(SsdScanInputs x) => ZEngine.Ops.SsdScan(x.X, x.Dt, x.A, x.B, x.C, x.D, x.Z, x.DtBias, x.InitialState, x.Options);

    [Fact]
    public void Traffic_equals_the_headers()
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        SsdScanInputs x = Inputs(counted);
        foreach (Tensor tensor in (ReadOnlySpan<Tensor>)[x.X, x.Dt, x.A, x.B, x.C, x.D!, x.Z!, x.DtBias!]) tape.Watch(tensor);
        Tensor dy = counted.Normal(9, 1, L, H, P).To(DType.BFloat16);
        counted.Launches();
        Tensor y = Scan(x).Y;
        LaunchProfile[] forward = counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] backward = counted.Launches();

        CountedDevice.Are(["ssd_scan_forward"], forward);
        // Both heads share a block, so B, C and their product.
        const long skip = P * Float, state = N * P * Float, border = N * P * Half, row = P * Half, inputs = 2 * N * Half;
        CountedDevice.Moved(H * (L * (2 * row + Half) + Chunks * ScalarsOfChunk + skip) + L * inputs, H * (L * 2 * row + Chunks * border + state), forward[0]);
        // C·Bᵀ and its product with x below the diagonal, in 16 × 16 tiles; C·S and Bᵀ·x whole.
        const long lower = Q * (Q + 16) / 2;
        Assert.Equal(2 * Chunks * (lower * N + H * (lower * P + 2 * Q * N * P)), forward[0].MatrixFlops);
        Assert.Equal(forward[0][InstructionClass.GlobalStore].Sectors, forward[0].GlobalBytesWritten / 32);

        CountedDevice.Are(["ssd_scan_state_backward", "ssd_scan_chunk_backward", "ssd_scan_sum_backward"], backward);
        CountedDevice.Moved(H * (L * (3 * row + Half + N * Half) + Chunks * ScalarsOfChunk), H * (L * 2 * row + Chunks * border), backward[0]);
        Assert.Equal(2 * H * L * N * P, backward[0].MatrixFlops);
        // A share has both heads, B and C. Of each head: dy, x, dt, A, the states before and behind, D for dx, and for the limits of Δ dt's bias.
        const long ofHead = Q * (2 * row + Half) + ScalarsOfChunk + 2 * border + skip + 256 * Float;
        CountedDevice.Moved(Chunks * (H * ofHead + Q * inputs), Chunks * (H * (Q * (row + Half) + (2 + P) * Float) + Q * 2 * N * Float), backward[1]);
        Assert.Equal(2 * Chunks * (H * (lower * 2 * P + 3 * Q * N * P) + lower * 3 * N), backward[1].MatrixFlops);
        CountedDevice.Moved(Chunks * H * (2 + P) * Float + 2 * L * N * Float, H * (2 + P) * Float + 2 * L * N * Half, backward[2]);
        Assert.All([.. forward, .. backward], launch => Assert.Equal(0, launch[InstructionClass.Atomic].Executions));
    }

    /// <summary>KERNELS.md's targets for a layer's shapes: two heads of 64 channels and 128 states share B, C and C·Bᵀ.</summary>
    [Fact]
    public void Forward_costs_what_the_targets_allow()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long heads = 4, states = 128;
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(DType.BFloat16);
        Tensor x = Normal(1, 1, L, heads, P), dt = Normal(2, 1, L, heads), B = Normal(3, 1, L, 1, states), C = Normal(4, 1, L, 1, states), A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(5, heads)), -1);
        counted.Launches();
        Scan(new SsdScanInputs(x, dt, A, B, C, null, null, null, null, new SsdScanOptions()));
        LaunchProfile launch = Assert.Single(counted.Launches());
        // Of a layer of 80 heads: what each block moved, 40 times, against everything once.
        const long layer = 80, least = L * (2 * layer * P + layer + 2 * states) * Half, final = heads * P * states * Float;
        double moved = (launch.GlobalBytesRead + launch.GlobalBytesWritten - final) * (layer / (double)heads) / least;
        Assert.InRange(moved, 1, 2.0);
        Assert.True(launch.MatrixFlops <= 1.15 * L * (heads * (2 * Q * P + 4 * P * states) + 2 * Q * states), "tensor-core operations against the formula");
        double special = (launch.Of("ex2").Threads + launch.Of("lg2").Threads + launch.Of("rcp").Threads) / (double)(L * heads);
        Assert.InRange(special, 1, 16);
        Assert.Equal(0, launch[InstructionClass.Atomic].Executions);
        Assert.Equal(launch[InstructionClass.GlobalStore].Sectors, launch.GlobalBytesWritten / 32);
    }

    /// <summary>
    /// The backward pass of a layer's shapes on a device whose 16 multiprocessors 4 sequences of 8 heads fill: bytes to the multiprocessors, tensor-core operations and scratch
    /// against the least. dS at every border of a chunk, written once and read once, and dy read twice, are what stands between memory's bytes and their target of 1.6.
    /// </summary>
    [Fact]
    public void Backward_costs_what_its_borders_leave()
    {
        using var counted = new CountedDevice(87);
        using Tape tape = Tape.Begin();
        const long batch = 4, heads = 8, states = 128, steps = 64, layer = 80;
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(DType.BFloat16);
        Tensor x = Normal(1, batch, steps, heads, P), dt = Normal(2, batch, steps, heads), B = Normal(3, batch, steps, 1, states), C = Normal(4, batch, steps, 1, states);
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(5, heads)), -1), dy = Normal(6, batch, steps, heads, P);
        foreach (Tensor tensor in (ReadOnlySpan<Tensor>)[x, dt, A, B, C]) tape.Watch(tensor);
        Tensor y = Scan(new SsdScanInputs(x, dt, A, B, C, null, null, null, null, new SsdScanOptions())).Y;
        counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] launches = counted.Launches();
        CountedDevice.Are(["ssd_scan_state_backward", "ssd_scan_chunk_backward", "ssd_scan_sum_backward"], launches);
        Assert.Equal((2, 2), SsdPlan.StateTiles((int)states, (int)P, (int)heads, 1, DType.BFloat16, (int)batch, counted.Device.Multiprocessors));

        // Per step of a layer of 80 heads in 2 shares, from what 8 heads in 4 shares moved: a block reads B and C, and the shares are added up, once for its heads.
        double perHead = launches.Sum(launch => launch.GlobalBytesRead) / (double)(batch * steps * heads), least = 3 * P * Half + 4 + 4 * states * Half / (double)layer;
        const double ofBlock = 2 * states * Half / 2.0 + 4 * 2 * states * Float / 8.0, ofLayer = 2 * states * Half / 40.0 + 2 * 2 * states * Float / 80.0;
        Assert.InRange((perHead - ofBlock + ofLayer) / least, 1, 3.0);
        Assert.Equal((4, 2), SsdPlan.Shares(batch, (int)heads, (int)states, DType.BFloat16, counted.Device.Multiprocessors));
        Assert.Equal((2, 40), SsdPlan.Shares(256, (int)layer, (int)states, DType.BFloat16, 132));
        double flops = launches.Sum(launch => launch.MatrixFlops) / (double)(batch * steps);
        Assert.InRange(flops, 1, 1.2 * (heads * (4.0 * Q * P + 10.0 * P * states) + 6.0 * Q * states));
        Assert.All(launches, launch => Assert.Equal(0, launch[InstructionClass.Atomic].Executions));
    }

    /// <summary>Registers and shared memory leave a block of two teams, or two of one, on a multiprocessor of every architecture.</summary>
    [Theory]
    [InlineData("sm_80", 163), InlineData("sm_86", 99), InlineData("sm_89", 99), InlineData("sm_90", 227)]
    public void Blocks_fit_every_architecture(string architecture, int kibibytes)
    {
        foreach ((string file, string name, int registers, int shared) in (ReadOnlySpan<(string, string, int, int)>)
        [
            ("SsdScanForward.cu", "ssd_scan_forward<bf16, 1, 2>", 128, SsdPlan.For(64, 64, 80, 1, DType.BFloat16, 8, 2048, 64, 132, 99 << 10).SharedBytes),
            ("SsdScanForward.cu", "ssd_scan_forward<bf16, 2, 2>", 128, SsdPlan.For(128, 64, 80, 1, DType.BFloat16, 8, 2048, 64, 132, 99 << 10).SharedBytes),
            ("SsdScanForward.cu", "ssd_scan_forward<bf16, 4, 1>", 255, SsdPlan.For(256, 64, 80, 1, DType.BFloat16, 8, 2048, 64, 132, 99 << 10).SharedBytes),
            ("SsdScanForward.cu", "ssd_scan_forward<f32, 2, 1>", 128, SsdPlan.For(128, 64, 80, 1, DType.Float32, 8, 2048, 64, 132, 99 << 10).SharedBytes),
            ("SsdScanForward.cu", "ssd_scan_state_forward<bf16>", 128, 2 * SsdPlan.TileBytes(DType.BFloat16)),
            ("SsdScanStateBackward.cu", "ssd_scan_state_backward<bf16, 2, 2>", 128, SsdPlan.StateShared(2, 2, DType.BFloat16)),
            ("SsdScanStateBackward.cu", "ssd_scan_state_backward<f32, 1, 1>", 128, SsdPlan.StateShared(1, 1, DType.Float32)),
            ("SsdScanChunkBackward.cu", "ssd_scan_chunk_backward<bf16, true>", 255, SsdPlan.ChunkTiles(128, DType.BFloat16) * SsdPlan.TileBytes(DType.BFloat16)),
            ("SsdScanChunkBackward.cu", "ssd_scan_chunk_backward<bf16, false>", 255, SsdPlan.ChunkTiles(256, DType.BFloat16) * SsdPlan.TileBytes(DType.BFloat16)),
            ("SsdScanChunkBackward.cu", "ssd_scan_chunk_backward<f32, false>", 255, SsdPlan.ChunkTiles(256, DType.Float32) * SsdPlan.TileBytes(DType.Float32)),
        ])
        {
            ModuleImage image = Compiler.CompileKernel(file, architecture, name);
            KernelResources used = image.Resources[image.Lowered(name)];
            Assert.True(used.Registers <= registers && used.SpillLoadBytes + used.SpillStoreBytes + used.StackBytes == 0, $"{name} on {architecture}: {used}");
            Assert.InRange(shared + used.SharedBytes, 1, kibibytes << 10);
        }
    }

    [Fact]
    public void A_step_is_one_launch_that_reads_and_writes_the_state_once()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long batch = 3;
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(DType.BFloat16);
        Tensor A = counted.Normal(5, H), state = counted.Normal(6, batch, H, P, N), B = Normal(3, batch, 1, 1, N);
        var x = new SsdScanInputs(Normal(1, batch, 1, H, P), Normal(2, batch, 1, H), A, B, B, null, null, null, state, new SsdScanOptions());
        counted.Launches();
        Scan(x);
        LaunchProfile[] launches = counted.Launches();
        CountedDevice.Are(["ssd_scan_step"], launches);
        LaunchProfile step = launches[0];
        // Four channels of a warp read B and C once; 16 of its lanes have 4 states each, and ask for each channel's x. dt and A are asked for by every thread; the lane that writes y reads nothing more.
        const long warps = P / 4, perHead = N * P * Float + warps * (2 * N * Half + 16 * 4 * Half) + warps * 32 * (Half + Float);
        CountedDevice.Moved(batch * H * perHead, batch * H * (N * P * Float + P * Half), step);
    }

    /// <summary>Rows so far apart that x, B, C and z reach beyond 2³¹ elements, most of which nobody ever touches.</summary>
    [Theory]
    [InlineData(3), InlineData(40)]                           // a chunk, and enough of them for segments
    public void Offsets_have_64_bits(long length)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long far = 1L << 31, heads = 2, p = 8, n = 8;
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(5, heads)), -1), dt = counted.Normal(2, 2, length, heads).To(DType.BFloat16);
        Tensor dy = counted.Normal(8, 2, length, heads, p).To(DType.BFloat16), memory = Tensor.Empty([2, far], DType.BFloat16, counted.Device);
        Tensor[] near = [counted.Normal(1, 2, length, heads, p), counted.Normal(3, 2, length, 1, n), counted.Normal(4, 2, length, 1, n), counted.Normal(6, 2, length, heads, p)];
        near = [.. near.Select(tensor => tensor.To(DType.BFloat16))];
        long at = 0;
        Tensor Spread(Tensor tensor)
        {
            long inner = tensor.Count / 2;
            Tensor spread = memory.Slice(1, at, inner);
            at += inner;
            ZEngine.Ops.Copy(tensor.Reshape(2, inner), spread);
            return spread.Reshape(tensor.Shape.ToArray());
        }
        float[][] Results(Tensor[] x)
        {
            using Tape tape = Tape.Begin();
            foreach (Tensor tensor in x) tape.Watch(tensor);
            (Tensor y, Tensor final) = Scan(new SsdScanInputs(x[0], dt, A, x[1], x[2], null, x[3], null, null, new SsdScanOptions(ChunkLength: length < 16 ? 0 : 2)));
            tape.Backward(y, dy);
            var results = new List<float[]> { y.To(DType.Float32).ToArray<float>(), final.ToArray<float>() };
            foreach (Tensor tensor in x) results.Add(tape.GradientOf(tensor).To(DType.Float32).ToArray<float>());
            return [.. results];
        }
        Tensor[] spread = [.. near.Select(Spread)];
        Assert.All(spread, tensor => Assert.True(tensor.Strides[0] >= far));
        float[][] want = Results(near), got = Results(spread);
        for (int k = 0; k < want.Length; k++)
        {
            Assert.Equal(want[k], got[k]);
            Assert.NotEqual(0, got[k][0]);
            Assert.NotEqual(0, got[k][^1]);
        }
    }
}
