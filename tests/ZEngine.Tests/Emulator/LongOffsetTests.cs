namespace ZEngine.Tests.Emulator;

/// <summary>
/// Every op of sequences where its outputs, gradients, kept states and scratch have more than 2³¹ elements: the first and the last sequence are as in a batch of these two alone. (Inputs and
/// gradients with strides have theirs in the tests of the ops.) A block may read what it wrote itself, and would find it at a wrong place too: so many sequences there are that the last offsets
/// of such scratch, cut off at 32 bits, are below 0, where no buffer is.
/// </summary>
public sealed class LongOffsetTests
{
    private static readonly DType Half = DType.BFloat16, Single = DType.Float32;

    /// <summary>Seventeen blocks to a group, of which the last begins a chain of its own, and four bands of states, which wait in memory between stretches.</summary>
    [Fact]
    public void Selective_scan() => SelectiveScan((1 << 15) + 482, length: 33, groups: 32, own: 1040, n: 64, blocks: 17);

    /// <summary>The ticket stands behind the turns of all stretches.</summary>
    [Fact]
    public void Ticket_of_the_selective_scan() => SelectiveScan((1 << 15) + 1, length: 1, groups: 1 << 15, own: 1, n: 1, blocks: 1, x => 2 * x.Stretches(32) * x.B.Shape[2]);

    private static void SelectiveScan(long sequences, long length, long groups, long own, long n, long blocks, Func<SelectiveScanInputs, long>? scratch = null) => OuterDevice.Compare(sequences, blocks, (device, batch) =>
    {
        long channels = groups * own;
        var x = new SelectiveScanInputs(
            device.Sequences(1, Half, batch, length, channels), device.Sequences(2, Half, batch, length, channels), device.Rates(channels, n), device.Sequences(3, Half, batch, length, groups, n),
            device.Sequences(4, Half, batch, length, groups, n), device.Normal(5, channels), device.Sequences(6, Half, batch, length, channels), device.Normal(7, channels),
            device.Sequences(8, Single, batch, channels, n), HasSoftplus: true, Layout: null, HasLogA: false);
        Tensor y = device.Zeros(Half, batch, length, channels), final = device.Zeros(Single, batch, channels, n), plain = device.Zeros(Half, batch, length, channels);
        Tensor states = device.Zeros(Single, x.Stretches(y.Backend.SelectiveScanStretch), n, channels);
        y.Backend.SelectiveScanForward(x, plain, final, null);
        y.Backend.SelectiveScanForward(x, y, final, states);
        SelectiveScanInputs d = x.EmptyLike();
        Clear(d.U, d.Dt, d.A, d.B, d.C, d.D, d.Z, d.DtBias, d.InitialState);
        Tensor dy = device.Sequences(9, Half, batch, length, channels), dfinal = device.Sequences(10, Single, batch, channels, n);
        y.Backend.SelectiveScanBackward(x, states, dy, dfinal, d);
        if (scratch is not null) OuterDevice.IsLong(scratch(x), batch);
        else
        {
            OuterDevice.AreLong(batch, y, final, states, d.U, d.Dt, d.Z, d.B, d.C, d.InitialState);
            OuterDevice.IsLong(batch * (n + 2) * channels, batch);                          // sums
        }
        return ([plain, y, final, states, d.U, d.Dt, d.Z!, d.B, d.C, d.InitialState!], [d.A, d.DtBias!]);
    });

    /// <summary>Nine heads to a group, so that two blocks share them out; 256 states, so that a block walks in passes and leaves the gradient of its state in global memory.</summary>
    [Fact]
    public void Dual_scan() => DualScan(Half, (1 << 15) + 385, length: 5, groups: 64, headsOfGroup: 9, p: 40, n: 256, chunk: 2);

    [Fact]
    public void Dual_scan_of_floats() => DualScan(Single, (3 << 14) + 1025, length: 3, groups: 512, headsOfGroup: 1, p: 32, n: 72, chunk: 1);

    /// <summary>Two segments of each sequence, as on a device of so many multiprocessors: what one leaves to the other is as long. The last sequence's sums take the turns that those of the second of two take.</summary>
    [Fact]
    public void Dual_scan_in_segments() =>
        DualScan(Half, (1 << 17) + 2, length: 17, groups: 1, headsOfGroup: 2, p: 64, n: 128, chunk: 1, x => x.InitialState!.Count, multiprocessors: 1 << 21, hasSkipPerChannel: false);

    /// <summary>The ticket stands behind the turns of all chunks.</summary>
    [Fact]
    public void Ticket_of_the_dual_scan() => DualScan(Half, 3 << 14, length: 3, groups: 1 << 14, headsOfGroup: 1, p: 1, n: 1, chunk: 1, x => x.Chunks() * x.B.Shape[2]);

    private static void DualScan(
        DType type, long sequences, long length, long groups, long headsOfGroup, long p, long n, long chunk, Func<SsdScanInputs, long>? scratch = null, int? multiprocessors = null,
        bool hasSkipPerChannel = true) => OuterDevice.Compare(sequences, blocks: 2, (device, batch) =>
    {
        long heads = groups * headsOfGroup;
        var x = new SsdScanInputs(
            device.Sequences(1, type, batch, length, heads, p), device.Sequences(2, type, batch, length, heads), device.Rates(heads), device.Sequences(3, type, batch, length, groups, n),
            device.Sequences(4, type, batch, length, groups, n), hasSkipPerChannel ? device.Normal(5, heads, p) : device.Normal(5, heads), device.Sequences(6, type, batch, length, heads, p), device.Normal(7, heads),
            device.Sequences(8, Single, batch, heads, p, n), new SsdScanOptions(ChunkLength: chunk));
        Tensor y = device.Zeros(type, batch, length, heads, p), ungated = device.Zeros(type, batch, length, heads, p), final = device.Zeros(Single, batch, heads, p, n), states = y.Backend.SsdStates(x);
        Clear(states);
        y.Backend.SsdScanForward(x, y, final, states, ungated);
        SsdScanInputs d = x.EmptyLike();
        Clear(d.X, d.Dt, d.A, d.B, d.C, d.D, d.Z, d.DtBias, d.InitialState);
        Tensor dy = device.Sequences(9, type, batch, length, heads, p), dfinal = device.Sequences(10, Single, batch, heads, p, n);
        y.Backend.SsdScanBackward(x, states, ungated, dy, dfinal, d);
        if (scratch is not null) OuterDevice.IsLong(scratch(x), batch);
        else
        {
            OuterDevice.AreLong(batch, y, ungated, final, states, d.X, d.Z, d.B, d.C, d.InitialState);
            OuterDevice.IsLong(x.Chunks() * heads * (2 + p), batch);                        // sums
        }
        return ([y, ungated, final, states, d.X, d.Dt, d.Z!, d.B, d.C, d.InitialState!], [d.A, d.D!]);
    }, architecture: 86, multiprocessors);

    /// <summary>A convolution before the dual scan and the squares of a norm behind it.</summary>
    [Theory, InlineData(false), InlineData(true)]
    public void Dual_scan_between_convolution_and_norm(bool isHalf) => OuterDevice.Compare((1 << 18) + 1, blocks: 1, (device, batch) =>
    {
        const long length = 2, groups = 1 << 10, heads = 4 * groups, p = 8, n = 8, taps = 4;
        DType type = isHalf ? Half : Single;
        Tensor input = device.Sequences(1, type, batch, length, heads * p), convolved = device.Zeros(type, batch, length, heads * p), inputs = device.Zeros(Single, batch, taps - 1, heads * p);
        var x = new SsdScanInputs(
            input.Reshape(batch, length, heads, p), device.Sequences(2, type, batch, length, heads), device.Rates(heads), device.Sequences(3, type, batch, length, groups, n),
            device.Sequences(4, type, batch, length, groups, n), device.Normal(5, heads), device.Sequences(6, type, batch, length, heads, p), null, null, new SsdScanOptions(ChunkLength: 2));
        var convolution = new CausalConv1dInputs(input, device.Normal(7, heads * p, taps), device.Normal(8, heads * p), device.Sequences(9, Single, batch, taps - 1, heads * p), HasSilu: true, null);
        Tensor y = device.Zeros(type, batch, length, heads, p), final = device.Zeros(Single, batch, heads, p, n), squares = device.Zeros(Single, batch, length, y.Backend.SsdSquares(x));
        Assert.True(y.Backend.SsdConvolves(x, taps));
        y.Backend.SsdScanForward(x, y, final, null, null, new SsdGate(device.Normal(10, heads * p), squares), new SsdInput(convolution, inputs, convolved));
        OuterDevice.AreLong(batch, y, final, squares, convolved, inputs);
        return ([y, final, squares, convolved, inputs], []);
    });

    [Fact]
    public void Dual_scan_of_one_step() => OuterDevice.Compare((1 << 16) + 1, blocks: 1, (device, batch) =>
    {
        const long heads = 512, p = 64, n = 4;
        var x = new SsdScanInputs(
            device.Sequences(1, Half, batch, 1, heads, p), device.Sequences(2, Half, batch, 1, heads), device.Rates(heads), device.Sequences(3, Half, batch, 1, heads, n), device.Sequences(4, Half, batch, 1, heads, n),
            device.Normal(5, heads), device.Sequences(6, Half, batch, 1, heads, p), null, device.Sequences(7, Single, batch, heads, p, n), new SsdScanOptions(ChunkLength: 1));
        Tensor y = device.Zeros(Half, batch, 1, heads, p), final = device.Zeros(Single, batch, heads, p, n);
        y.Backend.SsdScanForward(x, y, final, null, null);
        OuterDevice.AreLong(batch, y, final);
        return ([y, final], []);
    });

    [Fact]
    public void Convolution() => OuterDevice.Compare((1 << 17) + 1, blocks: 1, (device, batch) =>
    {
        const long length = 4, channels = 1 << 13, taps = 4;
        var x = new CausalConv1dInputs(
            device.Sequences(1, Half, batch, length, channels), device.Normal(2, channels, taps), device.Normal(3, channels), device.Sequences(4, Single, batch, taps - 1, channels), HasSilu: true, null);
        Tensor y = device.Zeros(Half, batch, length, channels), final = device.Zeros(Single, batch, taps - 1, channels);
        y.Backend.CausalConv1dForward(x, y, final);
        CausalConv1dInputs d = x with { X = Tensor.EmptyLike(x.X), Weight = Tensor.EmptyLike(x.Weight), Bias = Tensor.EmptyLike(x.Bias!), InitialState = Tensor.EmptyLike(x.InitialState!) };
        Clear(d.X, d.Weight, d.Bias, d.InitialState);
        Tensor dy = device.Sequences(5, Half, batch, length, channels), dfinal = device.Sequences(6, Single, batch, taps - 1, channels);
        y.Backend.CausalConv1dBackward(x, dy, dfinal, d, null);
        OuterDevice.AreLong(batch, y, final, d.X, d.InitialState);
        OuterDevice.IsLong(batch * (taps + 1) * channels, batch);                           // partial sums
        return ([y, final, d.X, d.InitialState!], [d.Weight, d.Bias!]);
    });

    [Fact]
    public void State_update() => OuterDevice.Compare((1 << 16) + 1, blocks: 1, (device, batch) =>
    {
        const long heads = 512, p = 64, groups = 8, n = 4, taps = 4, width = heads * p + 2 * groups * n;
        var cache = new StateCache(device.Sequences(1, Single, batch, taps - 1, width), device.Sequences(2, Single, batch, heads, p, n), device.Zeros(DType.Int32, batch, groups));
        var x = new StateUpdateInputs(
            device.Sequences(3, Half, batch, width), device.Sequences(4, Half, batch, heads), device.Rates(heads), device.Normal(5, width, taps), cache, device.Normal(6, width), device.Normal(7, heads),
            device.Normal(8, heads), device.Sequences(9, Half, batch, heads * p), null, new SsdScanOptions());
        Tensor y = device.Zeros(Half, batch, heads * p);
        y.Backend.StateUpdate(x, y);
        OuterDevice.AreLong(batch, y, cache.Convolution, cache.Scan);
        return ([y, cache.Convolution, cache.Scan], []);
    }, multiprocessors: 1);                                     // blocks of as many units, whatever the batch

    /// <summary>Two sequences in the first and the last slot of a cache, whose tickets are as long.</summary>
    [Fact]
    public void Tickets_of_state_updates() => OuterDevice.Compare((1 << 21) + 1, blocks: 1, (device, slots) =>
    {
        const long heads = 1 << 10, width = 3 * heads;
        var cache = new StateCache(device.Sequences(1, Single, slots, 1, width), device.Sequences(2, Single, slots, heads, 1, 1), device.Zeros(DType.Int32, slots, heads));
        var x = new StateUpdateInputs(
            device.Sequences(3, Half, 2, width), device.Sequences(4, Half, 2, heads), device.Rates(heads), device.Normal(5, width, 2), cache, null, null, null, null,
            Tensor.From<long>([0, slots - 1], [2], device.Device), new SsdScanOptions());
        Tensor y = device.Zeros(Half, 2, heads);
        y.Backend.StateUpdate(x, y);
        OuterDevice.AreLong(slots, cache.Convolution, cache.Scan, cache.Tickets);
        return ([y, cache.Convolution, cache.Scan], []);
    });

    /// <summary>All sequences have a slot, or none.</summary>
    [Theory, InlineData(false), InlineData(true)]
    public void Selective_state_update(bool isIdle) => OuterDevice.Compare((1 << 18) + 1, blocks: 1, (device, batch) =>
    {
        const long groups = 256, own = 32, channels = groups * own, n = 12, r = 8, taps = 4;
        var layer = new SelectiveStateLayer(
            device.Normal(1, channels, taps), device.Normal(2, channels), device.Normal(3, groups, r + 2 * n, own), device.Normal(4, channels, r), device.Normal(5, channels, n), device.Normal(6, channels), device.Normal(7, channels));
        var cache = new SelectiveStateCache(device.Sequences(8, Single, batch, taps - 1, channels), device.Sequences(9, Single, batch, channels, n));
        Tensor y = device.Sequences(12, Half, batch, channels);
        Tensor? slots = isIdle ? Tensor.From<int>([.. Enumerable.Repeat(-1, (int)batch)], [batch], device.Device) : null;
        y.Backend.SelectiveStateUpdate(device.Sequences(10, Half, batch, channels), layer, cache, device.Sequences(11, Half, batch, channels), slots, y);
        OuterDevice.AreLong(batch, y, cache.Convolution, cache.Scan);
        OuterDevice.IsLong(batch * groups * (r + 2 * n), batch);                            // the projection
        return ([y, cache.Convolution, cache.Scan], []);
    });

    /// <summary>Each row has a block backward, as on a device of so many multiprocessors, so that their sums are as long.</summary>
    [Theory, InlineData(null), InlineData(GateOrder.BeforeNorm), InlineData(GateOrder.AfterNorm)]
    public void Norm(GateOrder? gate) => OuterDevice.Compare((1 << 18) + 1, blocks: gate is null ? 1 : 8, (device, rows) =>
    {
        const long width = 1 << 13;
        long group = gate is null ? width : width / 8;
        bool isAdding = gate is null;
        var x = new RmsNormInputs(device.Sequences(1, Half, rows, width), device.Normal(2, width), isAdding ? null : device.Sequences(3, Half, rows, width), 1e-5f, gate ?? default, group);
        Tensor y = device.Zeros(Half, rows, width), rstd = device.Zeros(Single, rows, width / group), dy = device.Sequences(4, Half, rows, width);
        NormSum? sum = null;
        if (isAdding)
        {
            Tensor squares = device.Sequences(5, Single, rows, width);
            foreach (Tensor end in (ReadOnlySpan<Tensor>)[squares.Slice(0, 0, 1), squares.Slice(0, rows - 1, 1)]) end.CopyFrom<float>([.. end.ToArray<float>().Select(value => value * value)]);
            sum = new NormSum(device.Sequences(6, Half, rows, width), device.Zeros(Half, rows, width), new RowScale(squares, width, 1e-5f), device.Zeros(Single, rows));
            OuterDevice.AreLong(rows, squares, sum.Sum);
        }
        y.Backend.RmsNormForward(x, y, rstd, sum);
        RmsNormInputs d = x with { X = Tensor.EmptyLike(x.X), Weight = Tensor.EmptyLike(x.Weight), Z = isAdding ? null : Tensor.EmptyLike(x.X) };
        NormSumGradient? added = sum is null ? null : new NormSumGradient(device.Sequences(7, Half, rows, width), x.X, sum.Scale, sum.Factor, Tensor.EmptyLike(x.X), Tensor.EmptyLike(sum.Factor!));
        Clear(d.X, d.Weight, d.Z, added?.DAdded, added?.DSquares);
        y.Backend.RmsNormBackward(sum is null ? x : x with { X = sum.Sum }, rstd, dy, d, added, null, null);
        OuterDevice.AreLong(rows, y, d.X);
        return sum is null ? ([y, rstd, d.X, d.Z!], [d.Weight]) : ([y, sum.Sum, sum.Factor!, d.X, added!.DAdded!, added.DSquares!], [d.Weight]);
    }, multiprocessors: 1 << 22);

    private static void Clear(params ReadOnlySpan<Tensor?> tensors)
    {
        foreach (Tensor? tensor in tensors) tensor?.Clear();
    }
}
