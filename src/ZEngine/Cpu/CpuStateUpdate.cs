namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    /// <summary>The convolution, then the scan, on the states of the slots, which are gathered and scattered.</summary>
    internal override void StateUpdate(StateUpdateInputs x, Tensor y)
    {
        using TensorScope scope = TensorScope.Enter();
        (Tensor convolution, Tensor scan) = (x.Cache.Convolution, x.Cache.Scan);
        (long batch, long heads, long p, long n, long groups) = (x.X.Shape[0], scan.Shape[1], scan.Shape[2], scan.Shape[3], x.Cache.Tickets.Shape[1]);
        long[] slots = SlotsOf(nameof(StateUpdate), x.Slots, batch, scan.Shape[0]);
        long inner = heads * p;
        Tensor inputs = Gather(convolution, slots), states = Gather(scan, slots);
        Tensor mixed = Tensor.Empty([batch, 1, convolution.Shape[2]], DType.Float32, y.Device), nextInputs = Tensor.EmptyLike(inputs), nextStates = Tensor.EmptyLike(states);
        CausalConv1dForward(new CausalConv1dInputs(x.X.Reshape(batch, 1, -1), x.Weight, x.Bias, inputs, HasSilu: true, null), mixed, nextInputs);
        Tensor[] parts = Ops.Split(mixed, inner, groups * n, groups * n);
        var step = new SsdScanInputs(
            parts[0].Reshape(batch, 1, heads, p), x.Dt.Reshape(batch, 1, heads), x.A, parts[1].Reshape(batch, 1, groups, n), parts[2].Reshape(batch, 1, groups, n),
            x.D, x.Z?.Reshape(batch, 1, heads, p), x.DtBias, states, x.Options with { ChunkLength = 1 });
        SsdScanForward(step, y.Reshape(batch, 1, heads, p), nextStates, null, null, null);
        Scatter(nextInputs, slots, convolution);
        Scatter(nextStates, slots, scan);
        for (long b = 0; b < batch; b++)
            if (slots[b] < 0) y.Slice(0, b, 1).Clear();
    }

    private static long[] SlotsOf(string op, Tensor? slots, long batch, long count)
    {
        var values = new long[batch];
        for (long b = 0; b < batch; b++)
        {
            values[b] = slots is null ? b : slots.DType == DType.Int64 ? ((long*)slots.Address)[b] : ((int*)slots.Address)[b];
            if (values[b] >= count) throw new ArgumentException($"{op}: slots[{b}] is {values[b]}, but there are {count} slots.");
        }
        return values;
    }

    /// <summary>The states of slots, zeros for idle ones.</summary>
    private static Tensor Gather(Tensor states, long[] slots)
    {
        long[] shape = states.Shape.ToArray();
        shape[0] = slots.Length;
        Tensor own = Tensor.Zeros(shape, DType.Float32, states.Device);
        long bytes = own.Count / slots.Length * sizeof(float);
        for (int b = 0; b < slots.Length; b++)
            if (slots[b] >= 0) Buffer.MemoryCopy((byte*)states.Address + slots[b] * bytes, (byte*)own.Address + b * bytes, bytes, bytes);
        return own;
    }

    private static void Scatter(Tensor own, long[] slots, Tensor states)
    {
        long bytes = own.Count / slots.Length * sizeof(float);
        for (int b = 0; b < slots.Length; b++)
            if (slots[b] >= 0) Buffer.MemoryCopy((byte*)own.Address + b * bytes, (byte*)states.Address + slots[b] * bytes, bytes, bytes);
    }
}
