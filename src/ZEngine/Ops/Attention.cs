namespace ZEngine;

/// <summary>Which keys a query sees, and how scores are formed.</summary>
/// <param name="IsCausal">Whether query i sees only keys up to i + S - L: the mask is aligned to the end.</param>
/// <param name="Scale">Factor on q·k; null for 1/√P.</param>
/// <param name="Window">With a causal mask, only the last this many keys are seen, the query's own included; 0 for all.</param>
/// <param name="SoftCap">Scores s become cap·tanh(s / cap); 0 for none.</param>
/// <param name="Layout">Boundaries of packed sequences, in queries and keys alike; or null.</param>
public sealed record AttentionOptions(bool IsCausal = true, float? Scale = null, long Window = 0, float SoftCap = 0, SequenceLayout? Layout = null);

public static partial class Ops
{
    /// <summary>Scaled dot-product attention with grouped keys; scores are never stored whole.</summary>
    /// <param name="q">[B, L, H, P].</param>
    /// <param name="k">[B, S, G, P]; query head h uses key head h·G/H.</param>
    /// <param name="v">[B, S, G, P].</param>
    /// <param name="options">Mask, scale, window, soft cap, packed sequences.</param>
    /// <returns>o [B, L, H, P], and lse [B, L, H] Float32: the log of the sum of exp(score) of each query. A query that sees no key has o = 0 and lse = -∞.</returns>
    /// <remarks>o_i = Σ_j softmax_j(scale·q_i·k_j)·v_j. Vaswani et al. 2017, arXiv:1706.03762; online softmax: Dao et al. 2022, arXiv:2205.14135.</remarks>
    public static (Tensor O, Tensor Lse) Attention(Tensor q, Tensor k, Tensor v, AttentionOptions? options = null)
    {
        options ??= new AttentionOptions();
        var shape = new ShapeContract(nameof(Attention));
        shape.Require(q, "B L H P");
        shape.Require(k, "B S G P");
        shape.Require(v, "B S G P");
        shape.Require(shape['G'] > 0 && shape['H'] % shape['G'] == 0, $"G = {shape['G']} does not divide H = {shape['H']}.");
        shape.Require(options.Window >= 0, $"Window must not be negative, got {options.Window}.");
        shape.Require(options.Window == 0 || options.IsCausal, "a window needs a causal mask.");
        shape.Require(options.SoftCap >= 0, $"SoftCap must not be negative, got {options.SoftCap}.");
        shape.RequireLayout(options.Layout);
        shape.Require(options.Layout is null || shape['S'] == shape['L'], $"packed sequences need S = L, got {shape['S']} and {shape['L']}.");

        float scale = options.Scale ?? (float)(1 / Math.Sqrt(shape['P']));
        using TensorScope scope = TensorScope.Enter();
        var inputs = new AttentionInputs(q.WithDenseInner(1), k.WithDenseInner(1), v.WithDenseInner(1), scale, options);
        Tensor o = Tensor.Empty(q.Shape, q.DType, q.Device);
        Tensor lse = Tensor.Empty(q.Shape[..3], DType.Float32, q.Device);
        Tensor? rest = Tape.IsRecording ? q.Backend.AttentionRest(o, lse) : null;
        q.Backend.AttentionForward(inputs, o, lse, rest);
        if (Tape.IsRecording) RecordAttention(inputs, o, lse, rest);
        return (scope.Keep(o), scope.Keep(lse));
    }

    private static void RecordAttention(AttentionInputs x, Tensor o, Tensor lse, Tensor? rest) => Tape.Record([o, lse], [x.Q, x.K, x.V], [x.Q, x.K, x.V, o, lse, rest], dOutputs =>
    {
        Tensor dO = dOutputs[0]?.Contiguous() ?? Tensor.Zeros(o.Shape, o.DType, o.Device);
        Tensor dQ = Tensor.Empty(x.Q.Shape, x.Q.DType, x.Q.Device), dK = Tensor.Empty(x.K.Shape, x.K.DType, x.K.Device), dV = Tensor.Empty(x.V.Shape, x.V.DType, x.V.Device);
        o.Backend.AttentionBackward(x, o, lse, rest, dO, dOutputs[1]?.Contiguous(), dQ, dK, dV);
        return [dQ, dK, dV];
    });
}

/// <summary>The last axis of q, k and v is dense; their other axes may have any strides, as a part of a cache has.</summary>
internal sealed record AttentionInputs(Tensor Q, Tensor K, Tensor V, float Scale, AttentionOptions Options);

public abstract partial class Backend
{
    /// <summary>Where the forward pass leaves what rounding took from its results, if the backward pass needs it; or null.</summary>
    internal virtual Tensor? AttentionRest(Tensor o, Tensor lse) => null;

    /// <summary>Writes o [B, L, H, P], lse [B, L, H], and the <see cref="AttentionRest"/> of a pass that has a gradient.</summary>
    internal abstract void AttentionForward(AttentionInputs x, Tensor o, Tensor lse, Tensor? rest);

    /// <summary>Overwrites dQ, dK and dV, all contiguous.</summary>
    internal abstract void AttentionBackward(AttentionInputs x, Tensor o, Tensor lse, Tensor? rest, Tensor dO, Tensor? dLse, Tensor dQ, Tensor dK, Tensor dV);
}
