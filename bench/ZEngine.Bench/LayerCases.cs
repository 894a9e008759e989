using ZEngine.Cuda;
using ZEngine.Emulator;

namespace ZEngine.Bench;

/// <summary>Layers of KERNELS.md's table of gates. The least bytes, operations and functions are those of its roofline: each operand and result once, what the recurrence itself needs.</summary>
internal static class LayerCases
{
    private const double Half = 2, Float = 4;

    /// <summary>Layers with a gate, which tests hold.</summary>
    public static LayerCost[] All { get; } = [SelectiveScan(), SsdScan(), CausalConv1d(), GatedRmsNorm(), StateUpdate(DType.Float32), StateUpdate(DType.BFloat16), Decode(64, 8192, 1.12), Decode(1, 131072, 1.3)];

    /// <summary>Those, and layers without.</summary>
    public static LayerCost[] Shown { get; } = [.. All, Mamba2Scan()];

    private static double Least(double bytes, double flops = 0, double specials = 0, double floats = 0) => GpuRates.H200.LeastSeconds(bytes, flops, specials, floats);

    private static LayerCost SelectiveScan()
    {
        const long n = 16, sequences = 8, steps = 2048, channels = 5120;
        const double tokens = sequences * steps, all = tokens * channels;
        double forward = Least(Half * (4 * all + 2 * tokens * n) + Float * channels * n, 0, all * (n + 3), 4 * all * n);
        double backward = Least(Half * (7 * all + 2 * tokens * n) + Float * 2 * tokens * n, 0, all * n, 13 * all * n);
        int chains = SelectiveScanPlan.BackwardChains(channels / SelectiveScanPlan.BackwardWidth);
        return new("SelectiveScan", [new("B", 1, 2, sequences), new("L", 64, 96, steps), new("D", 256, 384, channels)], $"N {n}", [2, 128, 512], _ => 1,
            // Backward the last block of a group waits for those before it in its chain, and then for the chains before.
            [new("forward", forward, 1.35), new("forward in training", forward, 1.35), new("backward", backward, 1.6, SelectiveScanPlan.BackwardChain - 1 + chains - 1, Held: 2.34)],
            (counter, sizes) =>
            {
                var make = new Operands(counter.Device);
                (long b, long l, long d) = (sizes[0], sizes[1], sizes[2]);
                (Tensor u, Tensor dt, Tensor z, Tensor B, Tensor C) = (make.Halves(b, l, d), make.Halves(b, l, d), make.Halves(b, l, d), make.Halves(b, l, 1, n), make.Halves(b, l, 1, n));
                (Tensor A, Tensor skip, Tensor bias) = (make.Rates(d, n), make.Floats(d), make.Floats(d));
                Train(counter, make.Halves(b, l, d), () => Ops.SelectiveScan(u, dt, A, B, C, skip, z, bias).Y, u, dt, z, B, C, A, skip, bias);
            });
    }

    private static LayerCost SsdScan()
    {
        const long n = 128, p = 64, sequences = 8, steps = 2048, heads = 80, chunk = SsdPlan.Steps;
        const double tokens = sequences * steps;
        // The operations are those of the chunks that the kernels take; with the peers' chunks of 128 steps there would be more.
        double forward = Least(tokens * Half * (2 * heads * p + heads + 2 * n), tokens * (heads * (2 * chunk * p + 4 * p * n) + 2 * chunk * n));
        double backward = Least(tokens * (heads * (Half * 3 * p + 4) + Half * 4 * n), tokens * (heads * (4 * chunk * p + 10 * p * n) + 6 * chunk * n));
        SsdSweepPlan sweep = SsdSweepPlan.For((int)n, (int)p, (int)heads, 1, DType.BFloat16, (int)sequences, steps, (int)chunk, 132, 227 << 10);
        // Blocks backward have as many heads each as in the layer, and there is one for each multiprocessor.
        return new("SsdScan", [new("B", 1, 2, sequences), new("L", 256, 384, steps), new("H", 2 * sweep.Heads, 4 * sweep.Heads, heads)], $"P {p} N {n}", [2, 512, 2 * sweep.Heads], sizes => (int)(sizes[0] * sizes[2] / sweep.Heads),
            [new("forward", forward, 2.2), new("forward in training", forward, 2.2), new("backward", backward, 2.5, sweep.Shares - 1)],
            (counter, sizes) =>
            {
                var make = new Operands(counter.Device);
                (long b, long l, long h) = (sizes[0], sizes[1], sizes[2]);
                (Tensor x, Tensor dt, Tensor B, Tensor C) = (make.Halves(b, l, h, p), make.Halves(b, l, h), make.Halves(b, l, 1, n), make.Halves(b, l, 1, n));
                (Tensor A, Tensor skip, Tensor bias) = (make.Rates(h), make.Floats(h), make.Floats(h));
                Train(counter, make.Halves(b, l, h, p), () => Ops.SsdScan(x, dt, A, B, C, skip, null, bias).Y, x, dt, A, B, C, skip, bias);
            });
    }

    /// <summary>What stands between the projections of a Mamba-2 layer: convolution, scan, gate and norm. Rows [z; x; B; C; dt] are whole accesses where H is a multiple of 8.</summary>
    private static LayerCost Mamba2Scan()
    {
        const long n = 128, p = 64, sequences = 8, steps = 2048, heads = 80, taps = 4, chunk = SsdPlan.Steps;
        const double tokens = sequences * steps, inner = heads * p, projected = 2 * inner + 2 * n + heads;
        double forward = Least(tokens * Half * (projected + inner), tokens * (heads * (2 * chunk * p + 4 * p * n) + 2 * chunk * n));
        double backward = Least(tokens * Half * (2 * projected + inner), tokens * (heads * (4 * chunk * p + 10 * p * n) + 6 * chunk * n));
        SsdSweepPlan sweep = SsdSweepPlan.For((int)n, (int)p, (int)heads, 1, DType.BFloat16, (int)sequences, steps, (int)chunk, 132, 227 << 10);
        return new("Mamba2Scan", [new("B", 1, 2, sequences), new("L", 256, 384, steps), new("H", 8 * sweep.Heads, 16 * sweep.Heads, heads)], $"P {p} N {n} K {taps}", [2, 512, 8 * sweep.Heads], sizes => (int)(sizes[0] * sizes[2] / sweep.Heads),
            [new("forward", forward), new("forward in training", forward), new("backward", backward, SerialSteps: sweep.Shares - 1 + CudaBackend.RmsNormBlocks - 1)],
            (counter, sizes) =>
            {
                var make = new Operands(counter.Device);
                (long b, long l, long h) = (sizes[0], sizes[1], sizes[2]);
                long mixed = h * p + 2 * n;
                (Tensor x, Tensor weight, Tensor norm, Tensor bias) = (make.Halves(b, l, h * p + mixed + h), make.Floats(mixed, 1, taps), make.Floats(h * p), make.Floats(mixed));
                (Tensor A, Tensor skip, Tensor dtBias) = (make.Rates(h), make.Floats(h), make.Floats(h));
                Train(counter, make.Halves(b, l, h * p), () => Ops.Mamba2Scan(x, A, weight, norm, new Mamba2ScanOptions(1, 1e-5f), bias, skip, dtBias).Y, x, A, weight, norm, bias, skip, dtBias);
            });
    }

    /// <summary>A token's step of a Mamba-2 layer: the state is read and written once.</summary>
    private static LayerCost StateUpdate(DType states)
    {
        const long n = 128, p = 64, sequences = 128, heads = 80, taps = 4;
        double elements = (double)sequences * heads * p * n, rows = (double)sequences * (heads * p + 2 * n);
        return new("StateUpdate", [new("B", 1, 2, sequences), new("H", 64, 128, heads)], $"P {p} N {n} K {taps}, states {states}", [3, 96], _ => 1,
            [new("step", Least(states.Size * 2 * elements + rows * (Half + Float * 2 * (taps - 1)) + Half * sequences * heads * p * 2), 1.09)],
            (counter, sizes) =>
            {
                var make = new Operands(counter.Device);
                (long b, long h) = (sizes[0], sizes[1]);
                long width = h * p + 2 * n;
                (Tensor x, Tensor dt, Tensor z, Tensor weight, Tensor bias) = (make.Halves(b, width), make.Halves(b, h), make.Halves(b, h * p), make.Floats(width, taps), make.Floats(width));
                (Tensor A, Tensor skip, Tensor dtBias, StateCache cache) = (make.Rates(h), make.Floats(h), make.Floats(h), StateCache.Zeros(counter.Device, b, h, p, 1, n, taps, states));
                counter.Skip();
                Ops.StateUpdate(x, dt, A, weight, cache, bias, skip, dtBias, z);
                counter.Take();
            });
    }

    private static LayerCost CausalConv1d()
    {
        const long sequences = 8, steps = 2048, channels = 5376, taps = 4;
        const double all = (double)sequences * steps * channels;
        return new("CausalConv1d", [new("B", 1, 2, sequences), new("L", 1024, 2048, steps), new("D", 256, 512, channels)], $"K {taps}", [1, 3072, 256], _ => 1,
            [new("forward", Least(Half * 2 * all), 1.12), new("forward in training", Least(Half * 2 * all), 1.12), new("backward", Least(Half * 3 * all), 1.12)],
            (counter, sizes) =>
            {
                var make = new Operands(counter.Device);
                (Tensor x, Tensor weight, Tensor bias) = (make.Halves(sizes), make.Floats(sizes[2], taps), make.Floats(sizes[2]));
                Train(counter, make.Halves(sizes), () => Ops.CausalConv1d(x, weight, bias, hasSilu: true).Y, x, weight, bias);
            });
    }

    private static LayerCost GatedRmsNorm()
    {
        const long rows = 16384, width = 5120, multiprocessors = 132;
        const double all = (double)rows * width;
        // Rows are of all multiprocessors' blocks, four of each, and those of one add their shares of the weights' gradients to the same row, one after the other.
        return new("RmsNorm gated", [new("T", 96, 144, rows), new("multiprocessors", 8, 16, multiprocessors)], $"D {width}", [192, 8], sizes => (int)sizes[1],
            [new("forward", Least(Half * 3 * all), 1.10), new("forward in training", Least(Half * 3 * all), 1.10), new("backward", Least(Half * 5 * all), 1.18, CudaBackend.RmsNormBlocks - 1)],
            (counter, sizes) =>
            {
                var make = new Operands(counter.Device);
                (Tensor x, Tensor z, Tensor weight) = (make.Halves(sizes[0], width), make.Halves(sizes[0], width), make.Floats(width));
                Train(counter, make.Halves(sizes[0], width), () => Ops.RmsNorm(x, weight, 1e-5f, z), x, weight, z);
            });
    }

    private static LayerCost Decode(long batch, long keys, double gate)
    {
        const long p = 128, groups = 8, headsOfGroup = 4;
        double pairs = (double)batch * groups * keys;
        // The last split of a key head merges them, and the last key head lengthens the sequence.
        return new("AttentionDecode", [new("B", 0, 1, batch), new("S", 1024, 2048, keys), new("G", 1, 2, groups)], $"H {groups * headsOfGroup} P {p}", [2, 3072, 1], _ => 132,
            [new("step", Least(Half * 2 * pairs * p, 4 * pairs * headsOfGroup * p), gate, 2)],
            (counter, sizes) =>
            {
                var make = new Operands(counter.Device);
                (long b, long s, long g) = (sizes[0], sizes[1], sizes[2]);
                DecodeCache cache = DecodeCache.Contiguous(counter.Device, DType.BFloat16, b, s, g, p);
                (Tensor past, Tensor next, Tensor q, Tensor angles) = (make.Halves(b, s - 1, g, p), make.Halves(b, 1, g, p), make.Halves(b, 1, g * headsOfGroup, p), make.Floats(s, p / 2));
                Ops.AppendKeyValues(past, past, cache);
                counter.Skip();
                Ops.AttentionDecode(q, next, next, cache, new DecodeRotary(angles, angles));
                counter.Take();
            });
    }

    /// <summary>Forward alone, forward before a gradient, and backward of an op.</summary>
    private static void Train(PassCounter counter, Tensor dy, Func<Tensor> forward, params ReadOnlySpan<Tensor> inputs)
    {
        counter.Skip();
        forward();
        counter.Take();
        using Tape tape = Tape.Begin();
        foreach (Tensor input in inputs) tape.Watch(input);
        counter.Skip();
        Tensor y = forward();
        counter.Take();
        tape.Backward(y, dy);
        counter.Take();
    }

    /// <summary>Operands of one size, different ones each time.</summary>
    private sealed class Operands(CudaDevice device)
    {
        private ulong _seed;

        public Tensor Floats(params ReadOnlySpan<long> shape) => Ops.RandomNormal(shape, Device.Cpu, new RandomStream(++_seed)).To(device);

        public Tensor Halves(params ReadOnlySpan<long> shape) => Floats(shape).To(DType.BFloat16);

        /// <summary>A of a scan: below 0.</summary>
        public Tensor Rates(params ReadOnlySpan<long> shape) => Ops.Scale(Ops.Map(Pointwise.Exp, Floats(shape)), -1);
    }
}
