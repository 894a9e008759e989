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
        if (Node is null) return Ops.MergeAttention(World, o, lse);
        if (Node.Size * Across!.Size != World.Size) throw new InvalidOperationException($"KeyValueSharding: {Node.Size} ranks a machine on {Across.Size} machines are not the {World.Size} of the world.");
        (o, lse) = Ops.MergeAttention(Node, o, lse);
        return Ops.MergeAttention(Across, o, lse);
    }

    internal void RequireValid()
    {
        ArgumentNullException.ThrowIfNull(World);
        if (Block < 1) throw new ArgumentException($"KeyValueSharding: Block must be at least 1, got {Block}.");
    }
}
