namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    /// <summary>The ops one after the other, on the states of the slots, which are gathered and scattered.</summary>
    internal override void SelectiveStateUpdate(Tensor x, SelectiveStateLayer layer, SelectiveStateCache cache, Tensor? z, Tensor? slots, Tensor y)
    {
        using TensorScope scope = TensorScope.Enter();
        (long batch, long channels, long n, long rank, long groups) = (x.Shape[0], x.Shape[1], layer.LogA.Shape[1], layer.DtProjection.Shape[1], layer.Projection.Shape[0]);
        long[] places = SlotsOf(nameof(SelectiveStateUpdate), slots, batch, cache.Scan.Shape[0]);
        (Tensor u, Tensor inputs) = Ops.CausalConv1d(x.Reshape(batch, 1, channels), layer.Weight, layer.Bias, hasSilu: true, Gather(cache.Convolution, places));
        (var dt, var B, var C) = (new Tensor[groups], new Tensor[groups], new Tensor[groups]);
        for (int g = 0; g < groups; g++)
        {
            long own = channels / groups;
            Tensor[] parts = Ops.Split(EachRow(u.Slice(-1, g * own, own), layer.Projection.Select(0, g)), rank, n, n);
            if (layer.NormEpsilon is { } epsilon)
                for (int i = 0; i < parts.Length; i++) parts[i] = Ops.RmsNorm(parts[i], Ones(parts[i].Shape[^1], x.Device), epsilon);
            (dt[g], B[g], C[g]) = (EachRow(parts[0], layer.DtProjection.Slice(0, g * own, own)), parts[1].Reshape(batch, 1, 1, n), parts[2].Reshape(batch, 1, 1, n));
        }
        (Tensor result, Tensor states) = Ops.SelectiveScan(
            u, Ops.Concat(-1, dt), Ops.Scale(Ops.Map(Pointwise.Exp, layer.LogA), -1), Ops.Concat(2, B), Ops.Concat(2, C), layer.D, z?.Reshape(batch, 1, channels), layer.DtBias, Gather(cache.Scan, places));
        Ops.Copy(result.Reshape(batch, channels), y);
        Scatter(inputs, places, cache.Convolution);
        Scatter(states, places, cache.Scan);
        for (long b = 0; b < batch; b++)
            if (places[b] < 0) y.Slice(0, b, 1).Clear();
    }

    /// <summary>Products of one row each: a product of many rows adds in another order, and a sequence's numbers must not depend on the others.</summary>
    private static Tensor EachRow(Tensor x, Tensor weight) =>
        x.Shape[0] == 1 ? Ops.Linear(x, weight) : Ops.Concat(0, [.. Enumerable.Range(0, (int)x.Shape[0]).Select(b => Ops.Linear(x.Slice(0, b, 1), weight))]);

    private static Tensor Ones(long size, Device device)
    {
        Tensor ones = Tensor.Empty([size], DType.Float32, device);
        Ops.Fill(ones, 1);
        return ones;
    }
}
