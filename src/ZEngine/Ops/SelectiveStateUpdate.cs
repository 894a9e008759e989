namespace ZEngine;

/// <summary>The states of a Mamba layer's sequences, each in a slot, that <see cref="Ops.SelectiveStateUpdate"/> brings forward in place.</summary>
/// <param name="Convolution">[S, K-1, D] Float32: the last inputs of the convolution, as <see cref="Ops.CausalConv1d"/> leaves them.</param>
/// <param name="Scan">[S, D, N] Float32: as <see cref="Ops.SelectiveScan"/> leaves it.</param>
public sealed record SelectiveStateCache(Tensor Convolution, Tensor Scan)
{
    /// <summary>A cache of <paramref name="slots"/> empty states; its tensors belong to the innermost scope.</summary>
    public static SelectiveStateCache Zeros(Device device, long slots, long channels, long states, long taps) =>
        new(Tensor.Zeros([slots, taps - 1, channels], DType.Float32, device), Tensor.Zeros([slots, channels, states], DType.Float32, device));
}

/// <summary>The parameters of a Mamba layer between its outer projections.</summary>
/// <param name="Weight">[D, K], Float32, the taps; the last meets this step.</param>
/// <param name="Bias">[D], Float32, of the convolution; or null.</param>
/// <param name="Projection">[G, R + 2·N, D / G]: of each group of channels the rows that make [dt; B; C].</param>
/// <param name="DtProjection">[D, R], of the same type.</param>
/// <param name="LogA">[D, N], Float32: A is −exp of it.</param>
/// <param name="D">[D], Float32, the skip; or null.</param>
/// <param name="DtBias">[D], Float32, added to dt; or null.</param>
/// <param name="NormEpsilon">ε of RMSNorm, without a weight, on dt, B and C; or null for none.</param>
public sealed record SelectiveStateLayer(Tensor Weight, Tensor? Bias, Tensor Projection, Tensor DtProjection, Tensor LogA, Tensor? D = null, Tensor? DtBias = null, float? NormEpsilon = null);

public static partial class Ops
{
    /// <summary>One more step of every sequence through a Mamba layer, between its outer projections: convolution with silu, Δ, B and C, state, skip and gate. The states change in place.</summary>
    /// <param name="x">[B, D]: the convolution's input.</param>
    /// <param name="layer">The parameters.</param>
    /// <param name="cache">The states.</param>
    /// <param name="z">[B, D], a gate: y is multiplied by silu(z); or null.</param>
    /// <param name="slots">[B], the slot of each sequence, no two the same; a negative one is idle: it gets y = 0 and nothing of it changes. Null where sequence b stands in slot b.</param>
    /// <returns>y [B, D]. It is not recorded: the states are overwritten.</returns>
    /// <remarks>
    /// The numbers are those of <see cref="CausalConv1d"/>, <see cref="Linear"/> of one row, <see cref="RmsNorm"/> and <see cref="SelectiveScan"/>, one after the other. What a
    /// sequence gets depends on no other and not on its slot, to the bit. A slot that does not exist is an error, on a GPU when the host next waits.
    /// Gu and Dao 2023, arXiv:2312.00752, section 3.
    /// </remarks>
    public static Tensor SelectiveStateUpdate(Tensor x, SelectiveStateLayer layer, SelectiveStateCache cache, Tensor? z = null, Tensor? slots = null)
    {
        ArgumentNullException.ThrowIfNull(layer);
        ArgumentNullException.ThrowIfNull(cache);
        var shape = new ShapeContract(nameof(SelectiveStateUpdate));
        shape.Require(x, "B D");
        shape.RequireFloat32(layer.Weight, "D K");
        shape.Require(shape['K'] >= 1, "layer.Weight must have at least one tap.");
        shape.OptionalFloat32(layer.Bias, "D");
        shape.RequireFloat32(layer.LogA, "D N");
        shape.RequireWeight(layer.DtProjection, "D R");
        shape.RequireWeight(layer.Projection, "G rows own");
        long rows = shape['R'] + 2 * shape['N'];
        shape.Require(shape['G'] > 0 && shape['D'] % shape['G'] == 0, $"G = {shape['G']} does not divide D = {shape['D']}.");
        shape.Require(layer.Projection.Shape[1] == rows && layer.Projection.Shape[2] == shape['D'] / shape['G'], $"layer.Projection must be [G, R + 2·N, D / G] = [{shape['G']}, {rows}, {shape['D'] / shape['G']}], got {layer.Projection}.");
        shape.Require(layer.Projection.DType == layer.DtProjection.DType && (layer.Projection.DType == DType.Float32 || x.DType == DType.Float32 || x.DType == layer.Projection.DType),
            $"layer.Projection and layer.DtProjection must be of one type, Float32 or that of x ({x.DType}), got {layer.Projection.DType} and {layer.DtProjection.DType}.");
        shape.OptionalFloat32(layer.D, "D");
        shape.OptionalFloat32(layer.DtBias, "D");
        shape.RequireFloat32(cache.Convolution, "S K-1 D");
        shape.RequireFloat32(cache.Scan, "S D N");
        shape.Optional(z, "B D");
        if (slots is not null) shape.RequireIndex(slots, "B");
        shape.Require(slots is not null || shape['B'] <= shape['S'], $"{shape['B']} sequences need as many slots, the cache has {shape['S']}.");
        shape.Require(cache.Convolution.IsContiguous && cache.Scan.IsContiguous, "the cache must stand without gaps.");

        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        layer = layer with
        {
            Weight = layer.Weight.Contiguous(), Bias = layer.Bias?.Contiguous(), Projection = layer.Projection.Contiguous(), DtProjection = layer.DtProjection.Contiguous(),
            LogA = layer.LogA.Contiguous(), D = layer.D?.Contiguous(), DtBias = layer.DtBias?.Contiguous(),
        };
        Tensor y = Tensor.Empty([shape['B'], shape['D']], x.DType, x.Device);
        if (y.Count > 0) x.Backend.SelectiveStateUpdate(x.WithDenseInner(1), layer, cache, z?.WithDenseInner(1), slots?.Contiguous(), y);
        return scope.Keep(y);
    }
}

public abstract partial class Backend
{
    /// <summary>Writes y [B, D] and brings the states of the slots forward. The last axis of x and z is dense; all other tensors are contiguous.</summary>
    internal abstract void SelectiveStateUpdate(Tensor x, SelectiveStateLayer layer, SelectiveStateCache cache, Tensor? z, Tensor? slots, Tensor y);
}
