namespace ZEngine;

/// <summary>How queries and keys are rotated before they meet.</summary>
/// <param name="Cosine">[positions, pairs] Float32, as for <see cref="Ops.Rope"/>.</param>
/// <param name="Sine">[positions, pairs] Float32.</param>
/// <param name="Style">Which channels form pairs.</param>
/// <param name="Positions">[B] Int64: the position of each sequence's new token; null where that is its length.</param>
public sealed record DecodeRotary(Tensor Cosine, Tensor Sine, RotaryStyle Style = RotaryStyle.Half, Tensor? Positions = null);

public static partial class Ops
{
    /// <summary>One more token of every sequence: its query and key are rotated, its key and value appended to the cache, and it attends to all that is there, itself included.</summary>
    /// <param name="q">[B, 1, H, P], not rotated.</param>
    /// <param name="k">[B, 1, G, P], not rotated; query head h uses key head h·G/H. Null to attend to the cache as it is, which then does not grow.</param>
    /// <param name="v">[B, 1, G, P]; null with k.</param>
    /// <param name="cache">Keys and values so far; lengths grow by one.</param>
    /// <param name="rotary">Rotation, or null for none.</param>
    /// <param name="options">Scale, window and soft cap; a decoded token is the last, so a causal mask hides nothing. Without layout.</param>
    /// <returns>o [B, 1, H, P] and lse [B, 1, H] Float32, as of <see cref="Attention"/>. They are not recorded: the cache is overwritten as it grows.</returns>
    /// <remarks>
    /// What a sequence gets depends on no other and not on where its keys stand, to the bit. A length beyond the cache or the tables is an error, on a
    /// GPU when the host next waits. Dao et al. 2023, Flash-Decoding; Kwon et al. 2023, arXiv:2309.06180, section 4.1.
    /// </remarks>
    public static (Tensor O, Tensor Lse) AttentionDecode(Tensor q, Tensor? k, Tensor? v, DecodeCache cache, DecodeRotary? rotary = null, AttentionOptions? options = null)
    {
        options ??= new AttentionOptions();
        var shape = new ShapeContract(nameof(AttentionDecode));
        shape.Require(q, "B 1 H P");
        if (k is not null || v is not null)
        {
            shape.Require(k!, "B 1 G P");
            shape.Require(v!, "B 1 G P");
        }
        RequireCache(ref shape, cache, q.DType);
        shape.Require(shape['G'] > 0 && shape['H'] % shape['G'] == 0, $"G = {shape['G']} does not divide H = {shape['H']}.");
        shape.Require(options.Window >= 0, $"Window must not be negative, got {options.Window}.");
        shape.Require(cache.Window == 0 || options.Window > 0 && options.Window <= cache.Window, $"the cache keeps {cache.Window} positions: Window must be from 1 to that, got {options.Window}.");
        shape.Require(options.SoftCap >= 0, $"SoftCap must not be negative, got {options.SoftCap}.");
        shape.Require(options.Layout is null, "packed sequences cannot be given: a token of each sequence is decoded.");
        if (rotary is not null)
        {
            shape.RequireFloat32(rotary.Cosine, "positions pairs");
            shape.RequireFloat32(rotary.Sine, "positions pairs");
            shape.Require(2 * rotary.Cosine.Shape[1] <= shape['P'], $"{rotary.Cosine.Shape[1]} pairs need {2 * rotary.Cosine.Shape[1]} channels, but P is {shape['P']}.");
            if (rotary.Positions is not null) RequireInt64(ref shape, rotary.Positions, "rotary.Positions");
        }

        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        if (rotary is not null) rotary = rotary with { Cosine = rotary.Cosine.Contiguous(), Sine = rotary.Sine.Contiguous(), Positions = rotary.Positions?.Contiguous() };
        float scale = options.Scale ?? (float)(1 / Math.Sqrt(shape['P']));
        var inputs = new AttentionDecodeInputs(q.WithDenseInner(1), k?.WithDenseInner(1), v?.WithDenseInner(1), cache, rotary, scale, options.Window, options.SoftCap);
        Tensor o = Tensor.Empty(q.Shape, q.DType, q.Device), lse = Tensor.Empty(q.Shape[..3], DType.Float32, q.Device);
        q.Backend.AttentionDecode(inputs, o, lse);
        return (scope.Keep(o), scope.Keep(lse));
    }
}

/// <summary>The last axis of q, k and v is dense; the cosines and sines are contiguous.</summary>
internal sealed record AttentionDecodeInputs(Tensor Q, Tensor? K, Tensor? V, DecodeCache Cache, DecodeRotary? Rotary, float Scale, long Window, float SoftCap);

public abstract partial class Backend
{
    /// <summary>Writes o [B, 1, H, P] and lse [B, 1, H], and where there is a key appends it and lengthens every sequence that is not idle.</summary>
    internal abstract void AttentionDecode(AttentionDecodeInputs x, Tensor o, Tensor lse);
}
