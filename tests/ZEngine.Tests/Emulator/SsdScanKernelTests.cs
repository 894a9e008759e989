using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Tests.Ops;

namespace ZEngine.Tests.Emulator;

/// <summary>kernels/SsdScanForward.cu and kernels/SsdScanBackward.cu: what they move and multiply against the count by hand, and places beyond 2³¹ elements.</summary>
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
        const long skip = P * Float, state = N * P * Float, row = P * Half, inputs = 2 * N * Half;
        CountedDevice.Moved(H * (L * (2 * row + Half + inputs) + Chunks * ScalarsOfChunk + skip), H * (L * 2 * row + Chunks * state + state), forward[0]);
        // C·Bᵀ and its product with x below the diagonal, in 16 × 16 tiles; C·S and Bᵀ·x whole.
        const long lower = Q * (Q + 16) / 2;
        Assert.Equal(2 * H * Chunks * (lower * (N + P) + 2 * Q * N * P), forward[0].MatrixFlops);
        Assert.Equal(forward[0][InstructionClass.GlobalStore].Sectors, forward[0].GlobalBytesWritten / 32);

        CountedDevice.Are(["ssd_scan_state_backward", "ssd_scan_chunk_backward", "ssd_scan_sum_backward"], backward);
        CountedDevice.Moved(H * (L * (3 * row + Half + N * Half) + Chunks * ScalarsOfChunk), H * (L * 2 * row + Chunks * state), backward[0]);
        Assert.Equal(2 * H * L * N * P, backward[0].MatrixFlops);
        // A share has both heads. Of each: dy and x twice, dt and A twice, the states, dS_Q twice, B and C as they meet the states, B and D for dx.
        const long ofHead = Q * (4 * row + 2 * Half + inputs + N * Half) + 2 * ScalarsOfChunk + 3 * state + skip + 256 * Float, gradients = Q * 2 * N * Float;
        CountedDevice.Moved(Chunks * (H * ofHead + Q * 2 * inputs + gradients), Chunks * (H * (Q * (row + Half) + (2 + P) * Float) + 2 * gradients), backward[1]);
        Assert.Equal(2 * Chunks * (H * (lower * 2 * P + 3 * Q * N * P) + lower * 3 * N), backward[1].MatrixFlops);
        CountedDevice.Moved(Chunks * H * (2 + P) * Float + 2 * L * N * Float, H * (2 + P) * Float + 2 * L * N * Half, backward[2]);
        Assert.All([.. forward, .. backward], launch => Assert.Equal(0, launch[InstructionClass.Atomic].Executions));
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

    /// <summary>Rows so far apart that x, B and C reach beyond 2³¹ elements, most of which nobody ever touches.</summary>
    [Fact]
    public void Offsets_have_64_bits()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long far = 1L << 31, length = 3, heads = 1, p = 4, n = 4;
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(5, heads)), -1), dt = counted.Normal(2, 2, length, heads).To(DType.BFloat16);
        Tensor Spread(Tensor near)
        {
            long inner = near.Count / 2;
            Tensor memory = Tensor.Empty([2, far], DType.BFloat16, counted.Device), spread = memory.Slice(1, 0, inner);
            ZEngine.Ops.Copy(near.Reshape(2, inner), spread);
            return memory.Slice(1, 0, inner).Reshape(near.Shape.ToArray());
        }
        Tensor x = counted.Normal(1, 2, length, heads, p).To(DType.BFloat16), B = counted.Normal(3, 2, length, 1, n).To(DType.BFloat16);
        float[] want = Scan(new SsdScanInputs(x, dt, A, B, B, null, null, null, null, new SsdScanOptions())).Y.To(DType.Float32).ToArray<float>();
        Tensor farX = Spread(x), farB = Spread(B);
        Assert.True(farX.Strides[0] >= far && farB.Strides[0] >= far);
        Assert.Equal(want, Scan(new SsdScanInputs(farX, dt, A, farB, farB, null, null, null, null, new SsdScanOptions())).Y.To(DType.Float32).ToArray<float>());
    }
}
