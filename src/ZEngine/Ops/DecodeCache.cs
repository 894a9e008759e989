using System.Numerics;

namespace ZEngine;

/// <summary>Keys and values of several sequences, each of a length of its own, that <see cref="Ops.AttentionDecode"/> reads and appends to.</summary>
/// <remarks>
/// Lengths stand in device memory and grow there, so that a captured graph decodes token after token. A sequence with a negative length is
/// idle: it gets o = 0 and lse = -∞, and nothing of it changes. As bytes, an element x stands as round(x / s) with the scale s = max |x| / 127
/// of its row (a token's key or value of one head): its error is at most s / 2.
/// </remarks>
/// <param name="Keys">[B, S, G, P] for S positions of each sequence; with <paramref name="Pages"/> [pages, S, G, P]. In the type of the activations, or Int8.</param>
/// <param name="Values">As the keys.</param>
/// <param name="Lengths">[B] Int64: tokens of each sequence.</param>
/// <param name="Tickets">[B, G + 1] Int32, zero before a call and after it: who arrives last.</param>
/// <param name="Pages">[B, M] Int32: the page in which a sequence's positions S·m to S·m + S - 1 stand; S is then a power of two from 16 on. Entries beyond a sequence's length are not read.</param>
/// <param name="Scales">[pages, G, S, 2] Float32, with Int8 alone: of each key and each value. S is then even.</param>
/// <param name="Window">How many of a sequence's last positions are kept; 0 for all. Without pages position p then stands at p mod S, for S a power of two from the window on; with
/// them the pages in front of the window are not asked for.</param>
/// <param name="MaxLength">Tokens of a sequence at most, with a window and without pages.</param>
public sealed record DecodeCache(Tensor Keys, Tensor Values, Tensor Lengths, Tensor Tickets, Tensor? Pages = null, Tensor? Scales = null, long Window = 0, long MaxLength = 0)
{
    /// <summary>The scale of a row divides its largest element to this.</summary>
    internal const float MostByte = 127;

    /// <summary>Sequences.</summary>
    public long Batch => Lengths.Shape[0];

    /// <summary>Tokens of a sequence at most.</summary>
    public long Capacity => IsRing ? MaxLength : (Pages?.Shape[1] ?? 1) * Keys.Shape[1];

    /// <summary>Whether positions come round again.</summary>
    internal bool IsRing => Pages is null && Window > 0;

    /// <summary>A cache for <paramref name="capacity"/> tokens of each sequence, all empty; its tensors belong to the innermost scope.</summary>
    /// <remarks>With a <paramref name="window"/> it takes memory for the next power of two of tokens, however many there are.</remarks>
    public static DecodeCache Contiguous(Device device, DType dtype, long batch, long capacity, long groups, long headDimension, long window = 0)
    {
        long ring = (long)BitOperations.RoundUpToPowerOf2((ulong)Math.Max(2, window)), maxLength = 0;
        if (window > 0 && ring < capacity) (maxLength, capacity) = (capacity, ring);
        else window = 0;                                       // all fits
        if (dtype == DType.Int8) capacity += capacity & 1;     // scales are read two at a time
        Tensor keys = Tensor.Zeros([batch, capacity, groups, headDimension], dtype, device), values = Tensor.Zeros(keys.Shape, dtype, device);
        return new(keys, values, Tensor.Zeros([batch], DType.Int64, device), Tensor.Zeros([batch, groups + 1], DType.Int32, device),
            Scales: dtype == DType.Int8 ? Tensor.Zeros([batch, groups, capacity, 2], DType.Float32, device) : null, Window: window, MaxLength: maxLength);
    }

    /// <summary>Some of the sequences, as views.</summary>
    public DecodeCache Slice(long first, long count) => Pages is null
        ? new(Keys.Slice(0, first, count), Values.Slice(0, first, count), Lengths.Slice(0, first, count), Tickets.Slice(0, first, count), null, Scales?.Slice(0, first, count), Window, MaxLength)
        : this with { Lengths = Lengths.Slice(0, first, count), Tickets = Tickets.Slice(0, first, count), Pages = Pages.Slice(0, first, count) };
}

public static partial class Ops
{
    /// <summary>Appends keys and values of several tokens to every sequence: a prompt. Lengths grow by L.</summary>
    /// <param name="k">[B, L, G, P], rotated.</param>
    /// <param name="v">[B, L, G, P].</param>
    /// <param name="cache">Where they go.</param>
    public static void AppendKeyValues(Tensor k, Tensor v, DecodeCache cache)
    {
        var shape = new ShapeContract(nameof(AppendKeyValues));
        shape.Require(k, "B L G P");
        shape.Require(v, "B L G P");
        RequireCache(ref shape, cache, k.DType);
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        if (k.Count > 0) k.Backend.AppendKeyValues(k.WithDenseInner(1), v.WithDenseInner(1), cache);
    }

    /// <summary>Keys and values of every sequence, one after the other: what <see cref="Attention"/> takes.</summary>
    /// <param name="cache">The cache.</param>
    /// <param name="length">How many tokens S; those that a sequence does not have, or no more, are 0.</param>
    /// <param name="dtype">The type of the activations.</param>
    /// <param name="first">The position of the first.</param>
    /// <returns>Two tensors [B, S, G, P].</returns>
    public static (Tensor Keys, Tensor Values) ReadKeyValues(DecodeCache cache, long length, DType dtype, long first = 0)
    {
        var shape = new ShapeContract(nameof(ReadKeyValues));
        RequireCache(ref shape, cache, dtype);
        shape.Require(length >= 0 && first >= 0 && length <= cache.Capacity - first, $"length must be from 0 to the capacity {cache.Capacity}{(first == 0 ? "" : $" less first, {first}")}, got {length}.");
        Device device = cache.Keys.Device;
        Tensor keys = Tensor.Empty([shape['B'], length, shape['G'], shape['P']], dtype, device), values = Tensor.EmptyLike(keys);
        if (keys.Count > 0) device.Backend.ReadKeyValues(cache, first, keys, values);
        return (keys, values);
    }

    private static void RequireCache(ref ShapeContract shape, DecodeCache cache, DType activations)
    {
        ArgumentNullException.ThrowIfNull(cache);
        RequireInt64(ref shape, cache.Lengths, "cache.Lengths");
        bool isBytes = cache.Keys?.DType == DType.Int8;
        if (cache.Pages is not null) shape.RequireIndex(cache.Pages, "B M");
        foreach ((Tensor tensor, string name) in (ReadOnlySpan<(Tensor, string)>)[(cache.Keys!, "cache.Keys"), (cache.Values, "cache.Values")])
        {
            shape.RequireAny(tensor, cache.Pages is null ? "B S G P" : "pages S G P", name);
            shape.Require(tensor.DType == (isBytes ? DType.Int8 : activations), $"{name} must be {(isBytes ? DType.Int8 : activations)}{(isBytes ? " like cache.Keys" : ", the type of the activations, or Int8")}, got {tensor.DType}.");
            shape.Require(tensor.IsContiguous, $"{name} must stand without gaps, got {tensor}.");
        }
        shape.RequireAny(cache.Tickets, "cache.Tickets");
        shape.Require(cache.Tickets.DType == DType.Int32 && cache.Tickets.IsContiguous && cache.Tickets.Shape.SequenceEqual([shape['B'], shape['G'] + 1]),
            $"cache.Tickets must be Int32 [{shape['B']}, {shape['G'] + 1}] without gaps, got {cache.Tickets}.");
        long size = shape['S'];
        shape.Require(cache.Pages is null || cache.Pages.DType == DType.Int32 && cache.Pages.IsContiguous && size >= 16 && (size & size - 1) == 0,
            $"cache.Pages must be Int32 without gaps and a page 16 positions or a larger power of two, got {cache.Pages} and {size}.");
        shape.Require(cache.Window >= 0 && cache.MaxLength >= 0, $"cache.Window and cache.MaxLength must not be negative, got {cache.Window} and {cache.MaxLength}.");
        shape.Require(cache.IsRing ? cache.MaxLength > 0 : cache.MaxLength == 0, $"cache.MaxLength belongs to a window without pages, got {cache.MaxLength}.");
        shape.Require(!cache.IsRing || size >= cache.Window && (size & size - 1) == 0, $"a cache with a window of {cache.Window} needs positions of a power of two from there on, got {size}.");
        shape.Require(isBytes == cache.Scales is not null, "cache.Scales belong to Int8 keys and values.");
        if (cache.Scales is null) return;
        shape.RequireFloat32(cache.Scales, cache.Pages is null ? "B G S 2" : "pages G S 2");
        shape.Require(size % 2 == 0 && cache.Scales.IsContiguous, $"cache.Scales must stand without gaps for an even number of positions, got {cache.Scales} and {size}.");
    }

    private static void RequireInt64(ref ShapeContract shape, Tensor tensor, string name)
    {
        shape.RequireIndex(tensor, "B", name);
        shape.Require(tensor.DType == DType.Int64 && tensor.IsContiguous, $"{name} must be Int64 without gaps, got {tensor}.");
    }
}

public abstract partial class Backend
{
    /// <summary>Appends k and v [B, L, G, P] to every sequence that is not idle.</summary>
    internal abstract void AppendKeyValues(Tensor k, Tensor v, DecodeCache cache);

    /// <summary>Writes keys and values [B, S, G, P], both contiguous, of the positions from <paramref name="first"/> on.</summary>
    internal abstract void ReadKeyValues(DecodeCache cache, long first, Tensor keys, Tensor values);
}
