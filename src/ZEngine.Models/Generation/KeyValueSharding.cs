namespace ZEngine.Models;

/// <summary>How ranks part the keys and values of a session among them: blocks of positions in turn. Everything else is the same on all.</summary>
/// <remarks>
/// Ranks on several machines merge in two levels, within a machine first: then <paramref name="Node"/> are the ranks of this machine and
/// <paramref name="Across"/> those with this rank's place on the other machines.
/// </remarks>
/// <param name="World">All ranks; each opens the same session and makes the same calls.</param>
/// <param name="Block">Neighbouring positions that stay together.</param>
/// <param name="Node">The ranks of this machine, or null for one level.</param>
/// <param name="Across">One rank of each machine; with <paramref name="Node"/>.</param>
public sealed record KeyValueSharding(Communicator World, long Block = 256, Communicator? Node = null, Communicator? Across = null)
{
    /// <summary>The rank that keeps a position.</summary>
    public int OwnerOf(long position) => (int)(position / Block % World.Size);

    /// <summary>How many of the first positions a rank keeps.</summary>
    public long LengthOf(int rank, long positions)
    {
        long round = Block * World.Size;
        return positions / round * Block + Math.Clamp(positions % round - rank * Block, 0, Block);
    }

    /// <summary>The attention over the keys of all ranks, from each rank's own; the same bits on every rank.</summary>
    /// <param name="o">[B, L, H, P] Float32.</param>
    /// <param name="lse">[B, L, H]; -∞ where a rank has no key.</param>
    public (Tensor O, Tensor Lse) Merge(Tensor o, Tensor lse)
    {
        if (Node is null != Across is null) throw new InvalidOperationException("KeyValueSharding: Node and Across belong together.");
        if (Node is null) return Merge(World, o, lse);
        if (Node.Size * Across!.Size != World.Size) throw new InvalidOperationException($"KeyValueSharding: {Node.Size} ranks a machine on {Across.Size} machines are not the {World.Size} of the world.");
        (o, lse) = Merge(Node, o, lse);
        return Merge(Across, o, lse);
    }

    internal void RequireValid()
    {
        ArgumentNullException.ThrowIfNull(World);
        if (Block < 1) throw new ArgumentException($"KeyValueSharding: Block must be at least 1, got {Block}.");
    }

    /// <summary>One exchange: output and lse travel together.</summary>
    private static (Tensor O, Tensor Lse) Merge(Communicator group, Tensor o, Tensor lse)
    {
        if (group.Size == 1) return (o, lse);
        using TensorScope scope = TensorScope.Enter();
        (long b, long l, long h, long p) = (o.Shape[0], o.Shape[1], o.Shape[2], o.Shape[3]);
        Tensor own = Ops.Concat(-1, o, lse.Reshape(b, l, h, 1)), all = Tensor.Empty([group.Size, b, l, h, p + 1], DType.Float32, o.Device);
        group.AllGather(own, all);
        var parts = new (Tensor, Tensor)[group.Size];
        for (int rank = 0; rank < parts.Length; rank++)
        {
            Tensor part = all.Select(0, rank);
            parts[rank] = (part.Slice(-1, 0, p), part.Slice(-1, p, 1).Contiguous().Reshape(b, l, h));
        }
        (Tensor merged, Tensor mergedLse) = Ops.MergeAttention(parts);
        return (scope.Keep(merged), scope.Keep(mergedLse));
    }
}
