namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void StateUpdate(StateUpdateInputs x, Tensor y) =>
        InSlots(nameof(StateUpdate), x.Slots, x.X.Shape[0], x.Cache.Convolution, x.Cache.Scan, y, (convolution, scan) => Advance(x, convolution, scan, y));

    /// <summary>Brings states forward: in place where sequence b stands in slot b and they are Float32, else gathered and scattered. Idle sequences get y = 0.</summary>
    private static void InSlots(string op, Tensor? slots, long batch, Tensor convolution, Tensor scan, Tensor y, Action<Tensor, Tensor> advance)
    {
        using TensorScope scope = TensorScope.Enter();
        if (slots is null)
        {
            Tensor wide = scan.To(DType.Float32);
            advance(convolution, wide);
            if (scan.DType != DType.Float32) Ops.Copy(wide, scan);
            return;
        }
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

    /// <summary>The states of slots as Float32, zeros for idle ones.</summary>
    private static Tensor Gather(Tensor states, long[] slots)
    {
        long[] shape = states.Shape.ToArray();
        shape[0] = slots.Length;
        Tensor own = Tensor.Zeros(shape, DType.Float32, states.Device);
        for (int b = 0; b < slots.Length; b++)
            if (slots[b] >= 0) Ops.Copy(states.Slice(0, slots[b], 1), own.Slice(0, b, 1));
        return own;
    }

    private static void Scatter(Tensor own, long[] slots, Tensor states)
    {
        for (int b = 0; b < slots.Length; b++)
            if (slots[b] >= 0) Ops.Copy(own.Slice(0, b, 1), states.Slice(0, slots[b], 1));
    }
}
