namespace ZEngine;

public static partial class Ops
{
    /// <summary>Attention over keys that lie in shards: each shard gives its own output and lse, and these are merged exactly.</summary>
    /// <param name="q">[B, L, H, P].</param>
    /// <param name="shards">
    /// Keys and values [B, S, G, P], one shard after the other in order; a shard may be empty. Each may lie on a device of its own, which then works out its
    /// part; queries go there and o and lse come back as one tensor. Gradients do not cross devices.
    /// </param>
    /// <param name="options">As for <see cref="Attention"/> on all keys together; without window and layout. A causal mask may cut through the last shard with keys alone.</param>
    /// <param name="groupSize">How many neighbours are merged at once, level by level until one is left: 2 for a pairwise tree; 0 for all at once.</param>
    /// <returns>o [B, L, H, P] and lse [B, L, H], of all keys.</returns>
    /// <remarks>Shyam et al. 2024, arXiv:2408.04093: the merge is associative, so any tree gives the same result up to rounding.</remarks>
    public static (Tensor O, Tensor Lse) TreeAttention(Tensor q, ReadOnlySpan<(Tensor K, Tensor V)> shards, AttentionOptions? options = null, int groupSize = 0)
    {
        options ??= new AttentionOptions();
        var shape = new ShapeContract(nameof(TreeAttention));
        shape.Require(q, "B L H P");
        shape.Require(shards.Length > 0, "needs at least one shard.");
        shape.Require(options.Window == 0 && options.Layout is null, "a window or packed sequences cannot be given: shards know nothing of each other's keys.");
        shape.Require(groupSize is 0 or > 1, $"groupSize must be 0 or at least 2, got {groupSize}.");
        long total = 0, seen = 0;
        foreach ((Tensor k, Tensor v) in shards)
        {
            ShapeContract shard = shape;                       // every shard has an S of its own, and may have a device
            shard.AllowOtherDevice();
            shard.Require(k, "B S G P");
            shard.Require(v, "B S G P");
            shape.Require(shard['G'] > 0 && shard['H'] % shard['G'] == 0, $"G = {shard['G']} does not divide H = {shard['H']}.");
            total += k.Shape[1];
        }

        using TensorScope scope = TensorScope.Enter();
        var parts = new (Tensor O, Tensor Lse)[shards.Length];
        for (int i = 0; i < shards.Length; i++)
        {
            (Tensor k, Tensor v) = shards[i];
            seen += k.Shape[1];
            bool isLast = seen == total && k.Shape[1] > 0, isCut = options.IsCausal && seen > total - shape['L'] + 1 && k.Shape[1] > 0;
            shape.Require(!isCut || isLast, $"the causal mask cuts through shard {i}, which is not the last: its keys end at {seen}, but query 0 sees {total - shape['L'] + 1}.");
            parts[i] = AttentionAt(k.Device, q, k, v, options with { IsCausal = isCut });
        }
        (Tensor o, Tensor lse) = MergeLevels(parts, groupSize == 0 ? parts.Length : groupSize);
        return (scope.Keep(o), scope.Keep(lse));
    }

    /// <summary>The attention over the union of disjoint sets of keys, from the outputs over each.</summary>
    /// <param name="parts">o [B, L, H, P], and lse [B, L, H] Float32, of each set; a set that a query sees no key of has lse = -∞ there and counts for nothing.</param>
    /// <returns>o and lse; 0 and -∞ where no set has a key.</returns>
    /// <remarks>lse = ln Σ_i exp(lse_i), o = Σ_i exp(lse_i - lse)·o_i, summed in the order of the parts. No exponent is positive.</remarks>
    public static (Tensor O, Tensor Lse) MergeAttention(params ReadOnlySpan<(Tensor O, Tensor Lse)> parts)
    {
        var shape = new ShapeContract(nameof(MergeAttention));
        shape.Require(!parts.IsEmpty, "needs at least one part.");
        using TensorScope scope = TensorScope.Enter();
        var inputs = new Tensor[2 * parts.Length];             // every o, then every lse
        for (int i = 0; i < parts.Length; i++)
        {
            shape.Require(parts[i].O, "B L H P", $"o of part {i}");
            shape.RequireFloat32(parts[i].Lse, "B L H", $"lse of part {i}");
            (inputs[i], inputs[parts.Length + i]) = parts[i];
        }
        MergeSteps steps = StepsOf(inputs);
        Tensor o = Tensor.EmptyLike(inputs[0]), lse = Tensor.EmptyLike(inputs[parts.Length]);
        o.Backend.MergeAttentionForward(inputs, steps, o, lse);
        if (Tape.IsRecording) RecordMergeAttention(inputs, steps, o, lse);
        return (scope.Keep(o), scope.Keep(lse));
    }

    /// <summary>The attention over the keys of all ranks of a group, from the outputs over each rank's own: one exchange of B·L·H·(P + 1) numbers, whatever the number of keys.</summary>
    /// <param name="group">The ranks; each calls with tensors of the same shape.</param>
    /// <param name="o">[B, L, H, P].</param>
    /// <param name="lse">[B, L, H] Float32; -∞ where this rank has no key.</param>
    /// <returns>o and lse, merged in the order of the ranks: the same bits on every rank. For two levels merge within each machine first, then across.</returns>
    /// <remarks>Shyam et al. 2024, arXiv:2408.04093, section 4. Not recorded.</remarks>
    public static (Tensor O, Tensor Lse) MergeAttention(Communicator group, Tensor o, Tensor lse)
    {
        ArgumentNullException.ThrowIfNull(group);
        var shape = new ShapeContract(nameof(MergeAttention));
        shape.Require(o, "B L H P");
        shape.RequireFloat32(lse, "B L H");
        if (group.Size == 1) return (o, lse);
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        Tensor own = PackAttention(o, lse), all = Tensor.Empty([group.Size, .. own.Shape], DType.Float32, o.Device);
        group.AllGather(own, all);
        var parts = new (Tensor, Tensor)[group.Size];
        for (int rank = 0; rank < parts.Length; rank++) parts[rank] = UnpackAttention(all.Select(0, rank), o.DType);
        (Tensor merged, Tensor mergedLse) = MergeAttention(parts);
        return (scope.Keep(merged), scope.Keep(mergedLse));
    }

    /// <summary>An output and its lse as one tensor [B, L, H, P + 1] Float32: what travels between devices and ranks.</summary>
    private static Tensor PackAttention(Tensor o, Tensor lse) => Concat(-1, o.To(DType.Float32), lse.Reshape(lse.Shape[0], lse.Shape[1], lse.Shape[2], 1));

    /// <summary>What <see cref="PackAttention"/> packed, the output in its own type again.</summary>
    private static (Tensor O, Tensor Lse) UnpackAttention(Tensor packed, DType dtype)
    {
        long p = packed.Shape[3] - 1;
        return (packed.Slice(-1, 0, p).To(dtype), packed.Select(-1, p));
    }

    /// <summary>How far apart the rows of all parts stand: where they differ, or follow no one step, the parts become dense.</summary>
    private static MergeSteps StepsOf(Tensor[] inputs)
    {
        int parts = inputs.Length / 2;
        var steps = new MergeSteps(inputs[0].RowStride(), inputs[parts].RowStride(0));
        bool isEven = true;
        for (int i = 0; i < parts; i++)
        {
            (Tensor o, Tensor lse) = (inputs[i], inputs[parts + i]);
            isEven &= o.HasDenseInner(1) && o.HasEvenRows() && lse.HasEvenRows(0) && steps == new MergeSteps(o.RowStride(), lse.RowStride(0));
        }
        if (isEven) return steps;
        for (int i = 0; i < inputs.Length; i++) inputs[i] = inputs[i].Contiguous();
        return new(inputs[0].Shape[3], 1);
    }

    private static (Tensor O, Tensor Lse) AttentionAt(Device device, Tensor q, Tensor k, Tensor v, AttentionOptions options)
    {
        if (device == q.Device) return Attention(q, k, v, options);
        (Tensor o, Tensor lse) = Attention(q.To(device), k, v, options);
        return UnpackAttention(PackAttention(o, lse).To(q.Device), q.DType);
    }

    private static (Tensor O, Tensor Lse) MergeLevels(ReadOnlySpan<(Tensor O, Tensor Lse)> parts, int groupSize)
    {
        if (parts.Length == 1) return parts[0];
        var next = new (Tensor O, Tensor Lse)[(parts.Length + groupSize - 1) / groupSize];
        for (int i = 0; i < next.Length; i++)
        {
            ReadOnlySpan<(Tensor, Tensor)> group = parts[(i * groupSize)..Math.Min(parts.Length, (i + 1) * groupSize)];
            next[i] = group.Length == 1 ? group[0] : MergeAttention(group);
        }
        return MergeLevels(next, groupSize);
    }

    private static void RecordMergeAttention(Tensor[] inputs, MergeSteps steps, Tensor o, Tensor lse) => Tape.Record([o, lse], inputs, [.. inputs, o, lse], dOutputs =>
    {
        Tensor dO = dOutputs[0]?.Contiguous() ?? Tensor.Zeros(o.Shape, o.DType, o.Device);
        Tensor[] d = Array.ConvertAll(inputs, Tensor.EmptyLike);
        o.Backend.MergeAttentionBackward(inputs, steps, o, lse, dO, dOutputs[1]?.Contiguous(), d);
        return d;
    });
}

/// <summary>Elements from a row, of a token and head, to the next: in the o of every part, and in the lse.</summary>
internal readonly record struct MergeSteps(long O, long Lse);

public abstract partial class Backend
{
    /// <summary>Writes o and lse, contiguous; the inputs are every o, then every lse.</summary>
    internal abstract void MergeAttentionForward(Tensor[] inputs, MergeSteps steps, Tensor o, Tensor lse);

    /// <summary>Overwrites d, the gradients in the order of the inputs; all but the inputs are contiguous.</summary>
    internal abstract void MergeAttentionBackward(Tensor[] inputs, MergeSteps steps, Tensor o, Tensor lse, Tensor dO, Tensor? dLse, Tensor[] d);
}
