namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void StateUpdate(StateUpdateInputs x, Tensor y) =>
        InSlots(nameof(StateUpdate), x.Slots, x.X.Shape[0], x.Cache.Convolution, x.Cache.Scan, y, (convolution, scan) => Advance(x, convolution, scan, y));

    /// <summary>Brings states forward: in place where sequence b stands in slot b, else gathered and scattered. Idle sequences get y = 0.</summary>
    private static void InSlots(string op, Tensor? slots, long batch, Tensor convolution, Tensor scan, Tensor y, Action<Tensor, Tensor> advance)
    {
        if (slots is null)
        {
            advance(convolution, scan);
            return;
        }
        using TensorScope scope = TensorScope.Enter();
        long[] places = SlotsOf(op, slots, batch, scan.Shape[0]);
        Tensor inputs = Gather(convolution, places), states = Gather(scan, places);
        advance(inputs, states);
        Scatter(inputs, places, convolution);
        Scatter(states, places, scan);
        for (long b = 0; b < batch; b++)
            if (places[b] < 0) y.Slice(0, b, 1).Clear();
    }

    /// <summary>A step of every sequence; the states, of which there may be more, are read and overwritten element by element.</summary>
    private static void Advance(StateUpdateInputs x, Tensor convolution, Tensor scan, Tensor y)
    {
        using var mixed = new CpuScratch(x.X.Shape[0] * convolution.Shape[2]);
        ConvolveStep(x.X, x.Weight, x.Bias, convolution, mixed.Data);
        var step = new SsdView(x, mixed.Data, scan);
        For(step.Units, 1, new SsdForwardKernel(step, F32(y), F32(scan), null, null, null, null));
    }

    private static long[] SlotsOf(string op, Tensor slots, long batch, long count)
    {
        var values = new long[batch];
        for (long b = 0; b < batch; b++)
        {
            values[b] = slots.DType == DType.Int64 ? ((long*)slots.Address)[b] : ((int*)slots.Address)[b];
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
