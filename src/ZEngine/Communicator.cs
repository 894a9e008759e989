using System.Runtime.InteropServices;
using System.Text;

namespace ZEngine;

/// <summary>A group of ranks that exchange tensors. Every rank of the group makes the same calls in the same order.</summary>
/// <remarks>
/// Tensors are contiguous; they belong to the call until it returns, or until <see cref="CollectiveWork.Wait"/> for one that was begun.
/// On CPU ranks sums are taken in Float32 and pairwise, in a tree that depends on the ranks' order alone: the same bits always, on every
/// transport, and an all-reduce gives the bits of a reduce-scatter followed by an all-gather.
/// </remarks>
public abstract class Communicator : IDisposable
{
    /// <summary>A world of one rank, which moves nothing.</summary>
    public static Communicator Single { get; } = new SelfCommunicator();

    /// <summary>This rank, from 0 up.</summary>
    public abstract int Rank { get; }

    /// <summary>The number of ranks.</summary>
    public abstract int Size { get; }

    /// <summary>What moves the bytes, for people.</summary>
    public abstract string Name { get; }

    /// <summary>What this rank did last; null where nothing is recorded.</summary>
    public virtual FlightRecorder? Recorder => null;

    /// <summary>Replaces a tensor on all ranks by the reduction of all.</summary>
    public void AllReduce(Tensor tensor, ReduceOperation operation = ReduceOperation.Sum) => Execute(AllReduceOf(tensor, operation));

    /// <summary>Begins <see cref="AllReduce"/>.</summary>
    public CollectiveWork BeginAllReduce(Tensor tensor, ReduceOperation operation = ReduceOperation.Sum) => Begin(AllReduceOf(tensor, operation));

    /// <summary>Reduces over all ranks; each gets its part.</summary>
    /// <param name="source">The parts of all ranks, one after the other.</param>
    /// <param name="destination">This rank's part; may be that part of <paramref name="source"/>.</param>
    /// <param name="counts">Elements of each rank's part; null for equal parts.</param>
    /// <param name="operation">How.</param>
    public void ReduceScatter(Tensor source, Tensor destination, IReadOnlyList<long>? counts = null, ReduceOperation operation = ReduceOperation.Sum) => Execute(ReduceScatterOf(source, destination, counts, operation));

    /// <summary>Begins <see cref="ReduceScatter"/>.</summary>
    public CollectiveWork BeginReduceScatter(Tensor source, Tensor destination, IReadOnlyList<long>? counts = null, ReduceOperation operation = ReduceOperation.Sum) => Begin(ReduceScatterOf(source, destination, counts, operation));

    /// <summary>Brings the parts of all ranks to every rank.</summary>
    /// <param name="source">This rank's part; may be that part of <paramref name="destination"/>.</param>
    /// <param name="destination">The parts of all ranks, one after the other.</param>
    /// <param name="counts">Elements of each rank's part; null for equal parts.</param>
    public void AllGather(Tensor source, Tensor destination, IReadOnlyList<long>? counts = null) => Execute(AllGatherOf(source, destination, counts));

    /// <summary>Begins <see cref="AllGather"/>.</summary>
    public CollectiveWork BeginAllGather(Tensor source, Tensor destination, IReadOnlyList<long>? counts = null) => Begin(AllGatherOf(source, destination, counts));

    /// <summary>Every rank gives a part of its source to every rank.</summary>
    /// <param name="source">The parts for rank 0, 1, …, one after the other.</param>
    /// <param name="destination">The parts from rank 0, 1, …, one after the other; not the memory of <paramref name="source"/>.</param>
    /// <param name="sourceCounts">Elements for each rank; null for equal parts.</param>
    /// <param name="destinationCounts">Elements from each rank; null for equal parts.</param>
    public void AllToAll(Tensor source, Tensor destination, IReadOnlyList<long>? sourceCounts = null, IReadOnlyList<long>? destinationCounts = null)
    {
        RequireDense(CollectiveKind.AllToAll, source, nameof(source));
        RequireDense(CollectiveKind.AllToAll, destination, nameof(destination));
        RequireSame(CollectiveKind.AllToAll, source, destination);
        Execute(new Collective(
            CollectiveKind.AllToAll, source, destination, SourceCounts: Counts(CollectiveKind.AllToAll, source, sourceCounts, nameof(source)),
            DestinationCounts: Counts(CollectiveKind.AllToAll, destination, destinationCounts, nameof(destination))));
    }

    /// <summary>Replaces a tensor on all ranks by that of one.</summary>
    public void Broadcast(Tensor tensor, int root = 0)
    {
        RequireDense(CollectiveKind.Broadcast, tensor, nameof(tensor));
        RequireRank(CollectiveKind.Broadcast, root, nameof(root));
        Execute(new Collective(CollectiveKind.Broadcast, tensor, tensor, Peer: root));
    }

    /// <summary>Gives a tensor to another rank, which calls <see cref="Receive"/>.</summary>
    public void Send(Tensor tensor, int to)
    {
        RequireDense(CollectiveKind.Send, tensor, nameof(tensor));
        RequireOther(CollectiveKind.Send, to, nameof(to));
        Execute(new Collective(CollectiveKind.Send, tensor, Peer: to));
    }

    /// <summary>Overwrites a tensor with what another rank sends; it must have the same size and type there.</summary>
    public void Receive(Tensor tensor, int from)
    {
        RequireDense(CollectiveKind.Receive, tensor, nameof(tensor));
        RequireOther(CollectiveKind.Receive, from, nameof(from));
        Execute(new Collective(CollectiveKind.Receive, Destination: tensor, Peer: from));
    }

    /// <summary>Waits until every rank has come here.</summary>
    public void Barrier() => Execute(new Collective(CollectiveKind.Barrier));

    /// <summary>Parts the ranks into groups; every rank of this group must call.</summary>
    /// <param name="color">Ranks with the same number are one group; -1 for no group.</param>
    /// <param name="key">Orders the ranks of the group; equal keys stay in the order of the ranks here.</param>
    /// <returns>This rank's group, or null for none.</returns>
    public abstract Communicator? Split(int color, int key = 0);

    /// <summary>Tells the other ranks that this one cannot go on, and ends the job where there is one; may not return.</summary>
    /// <param name="exitCode">Of the job.</param>
    /// <param name="reason">One line for people.</param>
    public abstract void Abort(int exitCode, string reason);

    /// <summary>The value of every rank, in their order.</summary>
    public T[] Gather<T>(T value) where T : unmanaged => Gather<T>([value])[0];

    /// <summary>The values of every rank: result [i][r] is value i of rank r; all ranks give equally many.</summary>
    public T[][] Gather<T>(ReadOnlySpan<T> values) where T : unmanaged
    {
        using TensorScope scope = TensorScope.Enter();
        ReadOnlySpan<byte> own = MemoryMarshal.AsBytes(values);
        Tensor all = Tensor.Empty([(long)Size * own.Length], DType.UInt8, Device.Cpu);
        AllGather(Tensor.From(own, [own.Length], Device.Cpu), all);
        ReadOnlySpan<T> gathered = MemoryMarshal.Cast<byte, T>(all.ToArray<byte>());
        var result = new T[values.Length][];
        for (int i = 0; i < result.Length; i++)
        {
            result[i] = new T[Size];
            for (int rank = 0; rank < Size; rank++) result[i][rank] = gathered[rank * values.Length + i];
        }
        return result;
    }

    /// <summary>The text of every rank, in their order.</summary>
    public string[] GatherText(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        byte[] own = Encoding.UTF8.GetBytes(text);
        long[] counts = Gather((long)own.Length);
        using TensorScope scope = TensorScope.Enter();
        Tensor all = Tensor.Empty([counts.Sum()], DType.UInt8, Device.Cpu);
        AllGather(Tensor.From<byte>(own, [own.Length], Device.Cpu), all, counts);
        byte[] bytes = all.ToArray<byte>();
        var texts = new string[Size];
        for (int rank = 0, start = 0; rank < Size; start += (int)counts[rank++]) texts[rank] = Encoding.UTF8.GetString(bytes, start, (int)counts[rank]);
        return texts;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <inheritdoc/>
    public override string ToString() => $"rank {Rank} of {Size} over {Name}";

    /// <summary>Carries a checked call out.</summary>
    protected abstract void Execute(Collective call);

    /// <summary>Carries a checked call out beside the caller; where a communicator has no such thing, at once.</summary>
    protected virtual CollectiveWork Begin(Collective call)
    {
        Execute(call);
        return Finished.Instance;
    }

    /// <summary>Gives resources back.</summary>
    protected virtual void Dispose(bool disposing) { }

    private static Collective AllReduceOf(Tensor tensor, ReduceOperation operation)
    {
        RequireDense(CollectiveKind.AllReduce, tensor, nameof(tensor));
        return new Collective(CollectiveKind.AllReduce, tensor, tensor, operation);
    }

    private Collective ReduceScatterOf(Tensor source, Tensor destination, IReadOnlyList<long>? counts, ReduceOperation operation)
    {
        RequireDense(CollectiveKind.ReduceScatter, source, nameof(source));
        RequireDense(CollectiveKind.ReduceScatter, destination, nameof(destination));
        RequireSame(CollectiveKind.ReduceScatter, source, destination);
        counts = Counts(CollectiveKind.ReduceScatter, source, counts, nameof(source));
        RequirePart(CollectiveKind.ReduceScatter, destination, counts[Rank], nameof(destination));
        return new Collective(CollectiveKind.ReduceScatter, source, destination, operation, SourceCounts: counts);
    }

    private Collective AllGatherOf(Tensor source, Tensor destination, IReadOnlyList<long>? counts)
    {
        RequireDense(CollectiveKind.AllGather, source, nameof(source));
        RequireDense(CollectiveKind.AllGather, destination, nameof(destination));
        RequireSame(CollectiveKind.AllGather, source, destination);
        counts = Counts(CollectiveKind.AllGather, destination, counts, nameof(destination));
        RequirePart(CollectiveKind.AllGather, source, counts[Rank], nameof(source));
        return new Collective(CollectiveKind.AllGather, source, destination, DestinationCounts: counts);
    }

    private IReadOnlyList<long> Counts(CollectiveKind kind, Tensor whole, IReadOnlyList<long>? counts, string name)
    {
        if (counts is null)
        {
            if (whole.Count % Size != 0) throw new ArgumentException($"{kind}: {name} {whole} cannot be parted equally among {Size} ranks; give the counts.");
            var equal = new long[Size];
            Array.Fill(equal, whole.Count / Size);
            return equal;
        }
        if (counts.Count != Size) throw new ArgumentException($"{kind}: {counts.Count} counts for {Size} ranks.");
        if (counts.Any(count => count < 0) || counts.Sum() != whole.Count) throw new ArgumentException($"{kind}: the counts {string.Join(", ", counts)} do not add up to {name} {whole}.");
        return counts;
    }

    private void RequirePart(CollectiveKind kind, Tensor part, long count, string name)
    {
        if (part.Count != count) throw new ArgumentException($"{kind}: {name} of rank {Rank} must have {count} elements, got {part}.");
    }

    private static void RequireSame(CollectiveKind kind, Tensor source, Tensor destination)
    {
        if (source.DType != destination.DType || source.Device != destination.Device) throw new ArgumentException($"{kind}: source is {source} but destination is {destination}.");
    }

    private static void RequireDense(CollectiveKind kind, Tensor tensor, string name)
    {
        ArgumentNullException.ThrowIfNull(tensor, name);
        tensor.RequireAlive(kind.ToString());
        if (!tensor.IsContiguous) throw new ArgumentException($"{kind}: {name} {tensor} is not contiguous.");
    }

    private void RequireRank(CollectiveKind kind, int rank, string name)
    {
        if (rank < 0 || rank >= Size) throw new ArgumentOutOfRangeException(name, rank, $"{kind}: there are ranks 0 to {Size - 1}");
    }

    private void RequireOther(CollectiveKind kind, int rank, string name)
    {
        RequireRank(kind, rank, name);
        if (rank == Rank) throw new ArgumentOutOfRangeException(name, rank, $"{kind}: rank {rank} is this rank");
    }

    private sealed class Finished : CollectiveWork
    {
        public static Finished Instance { get; } = new();

        public override void Wait() { }
    }
}
