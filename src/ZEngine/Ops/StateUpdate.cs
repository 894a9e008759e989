namespace ZEngine;

/// <summary>The states of a Mamba-2 layer's sequences, each in a slot, that <see cref="Ops.StateUpdate"/> brings forward in place.</summary>
/// <param name="Convolution">[S, K-1, D] Float32: the last inputs of the convolution, as <see cref="Ops.CausalConv1d"/> leaves them; D = H·P + 2·G·N.</param>
/// <param name="Scan">
/// [S, H, P, N]: as <see cref="Ops.SsdScan"/> leaves it, Float32; or BFloat16 or Float16, half the bytes of a step, whose rounding is each step's: to nearest, so that where the decay is
/// close to 1 an input of less than half a unit in the last place of the state is lost (2⁻⁹ and 2⁻¹² of it), and Float16 overflows beyond 65,504.
/// </param>
/// <param name="Tickets">[S, G] Int32, zero before a call and after it: who arrives last.</param>
public sealed record StateCache(Tensor Convolution, Tensor Scan, Tensor Tickets)
{
    /// <summary>A cache of <paramref name="slots"/> empty states; its tensors belong to the innermost scope.</summary>
    public static StateCache Zeros(Device device, long slots, long heads, long headDimension, long groups, long states, long taps, DType scanType = DType.Float32) => new(
        Tensor.Zeros([slots, taps - 1, heads * headDimension + 2 * groups * states], DType.Float32, device), Tensor.Zeros([slots, heads, headDimension, states], scanType, device),
        Tensor.Zeros([slots, groups], DType.Int32, device));
}

public static partial class Ops
{
    /// <summary>One more step of every sequence through a Mamba-2 layer, between its projections: convolution with silu, Δ, state, skip and gate. The states change in place.</summary>
    /// <param name="x">[B, D]: the convolution's input, rows [x; B; C] of widths H·P, G·N, G·N.</param>
    /// <param name="dt">[B, H], before softplus.</param>
    /// <param name="A">[H], Float32, negative for a decaying state; or its logarithm, see <see cref="SsdScanOptions.HasLogA"/>.</param>
    /// <param name="weight">[D, K], Float32, the taps; the last meets this step.</param>
    /// <param name="cache">The states.</param>
    /// <param name="bias">[D], Float32, of the convolution; or null.</param>
    /// <param name="D">[H], Float32, the skip; or null.</param>
    /// <param name="dtBias">[H], Float32, added to dt; or null.</param>
    /// <param name="z">[B, H·P], a gate: y is multiplied by silu(z); or null.</param>
    /// <param name="slots">[B], the slot of each sequence, no two the same; a negative one is idle: it gets y = 0 and nothing of it changes. Null where sequence b stands in slot b.</param>
    /// <param name="options">Softplus, limits of Δ, and whether A is a logarithm.</param>
    /// <returns>y [B, H·P]. It is not recorded: the states are overwritten.</returns>
    /// <remarks>
    /// The numbers are those of <see cref="CausalConv1d"/> and <see cref="SsdScan"/>, one after the other; y is made of the state before it is rounded to the cache's type. What a sequence gets depends on no other and not on its slot,
    /// to the bit. A slot that does not exist is an error, on a GPU when the host next waits.
    /// </remarks>
    public static Tensor StateUpdate(
        Tensor x, Tensor dt, Tensor A, Tensor weight, StateCache cache, Tensor? bias = null, Tensor? D = null, Tensor? dtBias = null, Tensor? z = null, Tensor? slots = null, SsdScanOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(cache);
        options ??= new SsdScanOptions();
        var shape = new ShapeContract(nameof(StateUpdate));
        shape.Require(x, "B D");
        shape.Require(dt, "B H");
        shape.RequireFloat32(A, "H");
        shape.RequireFloat32(weight, "D K");
        shape.Require(shape['K'] >= 1, "weight must have at least one tap.");
        shape.RequireFloat32(cache.Convolution, "S K-1 D");
        shape.RequireWeight(cache.Scan, "S H P N");
        shape.RequireIndex(cache.Tickets, "S G");
        shape.Require(cache.Tickets.DType == DType.Int32, $"cache.Tickets must be Int32, got {cache.Tickets}.");
        shape.OptionalFloat32(bias, "D");
        shape.OptionalFloat32(D, "H");
        shape.OptionalFloat32(dtBias, "H");
        long inner = shape['H'] * shape['P'];
        shape.Require(shape['G'] > 0 && shape['H'] % shape['G'] == 0, $"G = {shape['G']} does not divide H = {shape['H']}.");
        shape.Require(shape['D'] == inner + 2 * shape['G'] * shape['N'], $"x {Tensor.ShapeText(x.Shape)} must have H·P + 2·G·N = {inner + 2 * shape['G'] * shape['N']} channels.");
        shape.Optional(z, "B inner");
        shape.Require(z is null || z.Shape[1] == inner, $"z must be [B, H·P] = [{shape['B']}, {inner}], got {z}.");
        if (slots is not null) shape.RequireIndex(slots, "B");
        shape.Require(slots is not null || shape['B'] <= shape['S'], $"{shape['B']} sequences need as many slots, the cache has {shape['S']}.");
        shape.Require(cache.Convolution.IsContiguous && cache.Scan.IsContiguous && cache.Tickets.IsContiguous, "the cache must stand without gaps.");
        shape.Require(options.Layout is null, "packed sequences cannot be given: a step of each sequence is taken.");

        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        var inputs = new StateUpdateInputs(
            x.WithDenseInner(1), dt.WithDenseInner(1), A.Contiguous(), weight.Contiguous(), cache, bias?.Contiguous(), D?.Contiguous(), dtBias?.Contiguous(), z?.WithDenseInner(1), slots?.Contiguous(), options);
        Tensor y = Tensor.Empty([shape['B'], inner], x.DType, x.Device);
        if (y.Count > 0) x.Backend.StateUpdate(inputs, y);
        return scope.Keep(y);
    }
}

/// <summary>The last axis of x, dt and z is dense; all other tensors are contiguous.</summary>
internal sealed record StateUpdateInputs(
    Tensor X, Tensor Dt, Tensor A, Tensor Weight, StateCache Cache, Tensor? Bias, Tensor? D, Tensor? DtBias, Tensor? Z, Tensor? Slots, SsdScanOptions Options);

public abstract partial class Backend
{
    /// <summary>Writes y [B, H·P] and brings the states of the slots forward.</summary>
    internal abstract void StateUpdate(StateUpdateInputs x, Tensor y);
}
