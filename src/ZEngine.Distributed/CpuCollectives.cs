using System.Runtime.InteropServices;

namespace ZEngine.Distributed;

/// <summary>Collectives over a transport that moves bytes: all arithmetic is here, so sums have the same bits on every transport.</summary>
/// <remarks>
/// Reduce-scatter is an all-to-all and a local sum in the order of the ranks (<see cref="OrderedReduction"/>); all-reduce is that and an
/// all-gather, or below <see cref="SmallBytes"/> an all-gather and the same local sum: the same volume as a ring. Before data moves the
/// ranks compare what they are about to do; <c>ZENGINE_COMM_CHECK=0</c> leaves that away. Tensors of other devices go through the host.
/// </remarks>
public sealed unsafe class CpuCollectives : Communicator
{
    private const long SmallBytes = 64 << 10, ChunkBytes = 4 << 20;

    private readonly CollectiveQueue _queue;
    private readonly int[] _members;                           // ranks of the transport
    private readonly int _tag;
    private readonly bool _isChecked = Environment.GetEnvironmentVariable("ZENGINE_COMM_CHECK") != "0";

    /// <summary>The world of a transport, which it owns.</summary>
    public CpuCollectives(Transport transport) : this(new CollectiveQueue(transport ?? throw new ArgumentNullException(nameof(transport))), [.. Enumerable.Range(0, transport.Size)], 0) { }

    private CpuCollectives(CollectiveQueue queue, int[] members, int tag)
    {
        (_queue, _members, _tag) = (queue, members, tag);
        Rank = Array.IndexOf(members, queue.Transport.Rank);
    }

    /// <inheritdoc/>
    public override int Rank { get; }

    /// <inheritdoc/>
    public override int Size => _members.Length;

    /// <inheritdoc/>
    public override string Name => _queue.Transport.Name;

    /// <inheritdoc/>
    public override FlightRecorder Recorder => _queue.Recorder;

    /// <inheritdoc/>
    public override Communicator? Split(int color, int key = 0)
    {
        int[][] all = Gather<int>([color, key, _queue.LastGroup]);
        // Groups of one split have no rank in common, so they may share a number.
        int tag = _queue.LastGroup = all[2].Max() + 1;
        if (color < 0) return null;
        int[] members = [.. Enumerable.Range(0, Size).Where(rank => all[0][rank] == color).OrderBy(rank => all[1][rank]).Select(rank => _members[rank])];
        return new CpuCollectives(_queue, members, tag);
    }

    /// <inheritdoc/>
    public override void Abort(int exitCode, string reason) => _queue.Transport.Abort(exitCode, reason);

    /// <inheritdoc/>
    protected override void Execute(Collective call) => _queue.Run(() => Perform(call));

    /// <inheritdoc/>
    protected override CollectiveWork Begin(Collective call) => _queue.Begin(() => Perform(call));

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (_tag == 0) _queue.Dispose();                       // groups only borrow
        base.Dispose(disposing);
    }

    private void Perform(Collective call)
    {
        long sequence = ++_queue.Sequence;
        object record = _queue.Recorder.Begin(sequence, _tag, call);
        try
        {
            if (_isChecked && call.Kind is not (CollectiveKind.Send or CollectiveKind.Receive)) CheckAgreement(call, sequence);
            if ((call.Source ?? call.Destination)?.Device is { } device && device != Device.Cpu) PerformOnHost(call);
            else Move(call);
        }
        catch (CommunicatorException e)
        {
            throw new CommunicatorException($"rank {Rank} of {Size}{(_tag == 0 ? "" : $" in group {_tag}")}, {call} (number {sequence}): {e.Message}.", e);
        }
        _queue.Recorder.End(record);
    }

    private void PerformOnHost(Collective call)
    {
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        Tensor? source = call.Source?.To(Device.Cpu);
        Tensor? destination = call.Destination is null ? null : ReferenceEquals(call.Source, call.Destination) ? source : call.Destination.To(Device.Cpu);
        Move(call with { Source = source, Destination = destination });
        if (destination is null) return;
        for (long at = 0, bytes = BytesOf(destination); at < bytes; at += ChunkBytes)
            call.Destination!.Device.CopyFromHost(new ReadOnlySpan<byte>((byte*)destination.Address + at, (int)Math.Min(ChunkBytes, bytes - at)), call.Destination.Address + (nint)at);
    }

    private void Move(Collective call)
    {
        switch (call.Kind)
        {
            case CollectiveKind.AllReduce: ReduceAll(call.Source!, call.Operation); break;
            case CollectiveKind.ReduceScatter: ScatterReduced(call); break;
            case CollectiveKind.AllGather: GatherAll(call); break;
            case CollectiveKind.AllToAll: DealOut(call); break;
            case CollectiveKind.Broadcast: Spread(call.Source!, call.Peer); break;
            case CollectiveKind.Send: Give(call.Source!, call.Peer); break;
            case CollectiveKind.Receive: Take(call.Destination!, call.Peer); break;
            default: if (!_isChecked) GatherBytes(stackalloc byte[1], stackalloc byte[Size]); break;
        }
    }

    private static long BytesOf(Tensor tensor) => tensor.Count * tensor.DType.Size;

    /// <summary>Exchanges between ranks of this group; what is empty or goes to itself must not be given.</summary>
    private void Exchange(ReadOnlySpan<Transfer> sends, ReadOnlySpan<Transfer> receives)
    {
        var (outgoing, incoming) = (new List<Transfer>(sends.Length), new List<Transfer>(receives.Length));
        foreach (Transfer send in sends)
            if (send.Bytes > 0 && send.Peer != Rank) outgoing.Add(send with { Peer = _members[send.Peer] });
        foreach (Transfer receive in receives)
            if (receive.Bytes > 0 && receive.Peer != Rank) incoming.Add(receive with { Peer = _members[receive.Peer] });
        if (outgoing.Count + incoming.Count > 0) _queue.Transport.Exchange(_tag, CollectionsMarshal.AsSpan(outgoing), CollectionsMarshal.AsSpan(incoming));
    }

    private void ReduceAll(Tensor tensor, ReduceOperation operation)
    {
        long bytes = BytesOf(tensor);
        if (Size == 1 || bytes == 0) return;
        int size = tensor.DType.Size;
        if (bytes <= SmallBytes)
        {
            nint all = _queue.Scratch(bytes * Size);
            GatherBytes(new ReadOnlySpan<byte>((void*)tensor.Address, (int)bytes), new Span<byte>((void*)all, (int)bytes * Size));
            var contributions = new nint[Size];
            for (int rank = 0; rank < Size; rank++) contributions[rank] = all + (nint)(rank * bytes);
            OrderedReduction.Reduce(tensor.DType, operation, contributions, tensor.Address, tensor.Count);
            return;
        }
        long piece = Size * (ChunkBytes / size);
        for (long begin = 0; begin < tensor.Count; begin += piece)
        {
            long[] counts = EvenParts(Math.Min(piece, tensor.Count - begin));
            nint first = tensor.Address + (nint)(begin * size);
            ReducePart(tensor.DType, operation, first, counts, first + (nint)(counts.Take(Rank).Sum() * size));
            GatherParts(first, counts, size);
        }
    }

    private void ScatterReduced(Collective call)
    {
        Tensor source = call.Source!, destination = call.Destination!;
        int size = source.DType.Size;
        IReadOnlyList<long> counts = call.SourceCounts!;
        long most = counts.Max(), step = ChunkBytes / size;
        // In steps over all parts at once, so that the memory for what arrives stays small.
        for (long begin = 0; begin < most; begin += step)
        {
            var (sends, receives) = (new Transfer[Size], new Transfer[Size]);
            long own = Math.Clamp(counts[Rank] - begin, 0, step), start = 0;
            nint scratch = _queue.Scratch(Math.Max(1, Size * own * size));
            var contributions = new nint[Size];
            for (int rank = 0; rank < Size; start += counts[rank++])
            {
                sends[rank] = new Transfer(rank, source.Address + (nint)((start + begin) * size), Math.Clamp(counts[rank] - begin, 0, step) * size);
                receives[rank] = new Transfer(rank, contributions[rank] = scratch + (nint)(rank * own * size), own * size);
            }
            contributions[Rank] = sends[Rank].Address;
            Exchange(sends, receives);
            OrderedReduction.Reduce(source.DType, call.Operation, contributions, destination.Address + (nint)(begin * size), own);
        }
    }

    /// <summary>Every rank gets the reduction of its part of a piece.</summary>
    private void ReducePart(DType dtype, ReduceOperation operation, nint first, long[] counts, nint result)
    {
        int size = dtype.Size;
        long own = counts[Rank], start = 0;
        nint scratch = _queue.Scratch(Math.Max(1, Size * own * size));
        var (sends, receives, contributions) = (new Transfer[Size], new Transfer[Size], new nint[Size]);
        for (int rank = 0; rank < Size; start += counts[rank++])
        {
            sends[rank] = new Transfer(rank, first + (nint)(start * size), counts[rank] * size);
            receives[rank] = new Transfer(rank, contributions[rank] = scratch + (nint)(rank * own * size), own * size);
        }
        contributions[Rank] = result;
        Exchange(sends, receives);
        OrderedReduction.Reduce(dtype, operation, contributions, result, own);
    }

    private long[] EvenParts(long count)
    {
        var counts = new long[Size];
        for (int rank = 0; rank < Size; rank++) counts[rank] = count * (rank + 1) / Size - count * rank / Size;
        return counts;
    }

    private void GatherAll(Collective call)
    {
        Tensor source = call.Source!, destination = call.Destination!;
        IReadOnlyList<long> counts = call.DestinationCounts!;
        int size = source.DType.Size;
        nint own = destination.Address + (nint)(counts.Take(Rank).Sum() * size);
        if (own != source.Address) Buffer.MemoryCopy((void*)source.Address, (void*)own, BytesOf(source), BytesOf(source));
        GatherParts(destination.Address, counts, size);
    }

    /// <summary>Every rank's own part stands in its place; brings the others' there.</summary>
    private void GatherParts(nint first, IReadOnlyList<long> counts, int size)
    {
        nint own = first + (nint)(counts.Take(Rank).Sum() * size);
        var (sends, receives) = (new Transfer[Size], new Transfer[Size]);
        long start = 0;
        for (int rank = 0; rank < Size; start += counts[rank++])
        {
            sends[rank] = new Transfer(rank, own, counts[Rank] * size);
            receives[rank] = new Transfer(rank, first + (nint)(start * size), counts[rank] * size);
        }
        Exchange(sends, receives);
    }

    private void GatherBytes(ReadOnlySpan<byte> own, Span<byte> all)
    {
        own.CopyTo(all[(Rank * own.Length)..]);
        var counts = new long[Size];
        Array.Fill(counts, own.Length);
        fixed (byte* first = all) GatherParts((nint)first, counts, 1);
    }

    private void DealOut(Collective call)
    {
        Tensor source = call.Source!, destination = call.Destination!;
        int size = source.DType.Size;
        var (sends, receives) = (new Transfer[Size], new Transfer[Size]);
        long from = 0, to = 0;
        for (int rank = 0; rank < Size; rank++)
        {
            sends[rank] = new Transfer(rank, source.Address + (nint)(from * size), call.SourceCounts![rank] * size);
            receives[rank] = new Transfer(rank, destination.Address + (nint)(to * size), call.DestinationCounts![rank] * size);
            from += call.SourceCounts[rank];
            to += call.DestinationCounts[rank];
        }
        if (sends[Rank].Bytes != receives[Rank].Bytes) throw new CommunicatorException($"gives itself {sends[Rank].Bytes} bytes, but takes {receives[Rank].Bytes} from itself");
        Buffer.MemoryCopy((void*)sends[Rank].Address, (void*)receives[Rank].Address, sends[Rank].Bytes, sends[Rank].Bytes);
        Exchange(sends, receives);
    }

    /// <summary>Says what comes first: not every transport knows how long a message is.</summary>
    private void Give(Tensor tensor, int to)
    {
        (long Count, long Type) own = (tensor.Count, (long)tensor.DType);
        if (_isChecked) Exchange([new Transfer(to, (nint)(&own), sizeof((long, long)))], []);
        Exchange([new Transfer(to, tensor.Address, BytesOf(tensor))], []);
    }

    private void Take(Tensor tensor, int from)
    {
        (long Count, long Type) theirs = default;
        if (_isChecked) Exchange([], [new Transfer(from, (nint)(&theirs), sizeof((long, long)))]);
        if (_isChecked && theirs != (tensor.Count, (long)tensor.DType))
            throw new CommunicatorException($"the ranks are out of step: rank {from} sends {theirs.Count} {(DType)theirs.Type}, rank {Rank} takes {tensor.Count} {tensor.DType}");
        Exchange([], [new Transfer(from, tensor.Address, BytesOf(tensor))]);
    }

    /// <summary>Down a binomial tree: log2 n steps.</summary>
    private void Spread(Tensor tensor, int root)
    {
        int place = (Rank - root + Size) % Size;
        int step = 1;
        for (; step < Size; step <<= 1)
        {
            if ((place & step) == 0) continue;
            Exchange([], [new Transfer((place - step + root) % Size, tensor.Address, BytesOf(tensor))]);
            break;
        }
        for (step >>= 1; step > 0; step >>= 1)
            if (place + step < Size) Exchange([new Transfer((place + step + root) % Size, tensor.Address, BytesOf(tensor))], []);
    }

    /// <summary>All ranks say what they are about to do; ranks that differ must not exchange data.</summary>
    private void CheckAgreement(Collective call, long sequence)
    {
        if (Size == 1) return;
        var all = new Claim[Size];
        for (int rank = 0; rank < Size; rank++)
            all[rank] = new Claim(sequence, (int)call.Kind, call.DType is { } dtype ? (int)dtype : -1, (int)call.Operation, call.Kind == CollectiveKind.Broadcast ? call.Peer : -1, CountFor(call, rank), CountFrom(call, rank));
        Claim[] sent = [.. all], got = [.. all];
        fixed (Claim* to = sent, from = got)
        {
            var (sends, receives) = (new Transfer[Size], new Transfer[Size]);
            for (int rank = 0; rank < Size; rank++)
            {
                sends[rank] = new Transfer(rank, (nint)(to + rank), sizeof(Claim));
                receives[rank] = new Transfer(rank, (nint)(from + rank), sizeof(Claim));
            }
            Exchange(sends, receives);
        }
        for (int rank = 0; rank < Size; rank++)
            if (!got[rank].Fits(sent[rank]))
                throw new CommunicatorException($"the ranks are out of step: rank {rank} is at {got[rank]}, rank {Rank} at {sent[rank]}");
    }

    /// <summary>Elements that this rank gives to another.</summary>
    private long CountFor(Collective call, int rank) => call.SourceCounts is { } counts ? counts[rank] : call.DestinationCounts is { } parts ? parts[Rank] : call.Count;

    /// <summary>Elements that this rank takes from another.</summary>
    private long CountFrom(Collective call, int rank) => call.Kind switch
    {
        CollectiveKind.AllToAll => call.DestinationCounts![rank],
        CollectiveKind.ReduceScatter => call.SourceCounts![Rank],
        CollectiveKind.AllGather => call.DestinationCounts![rank],
        _ => call.Count,
    };

    [StructLayout(LayoutKind.Sequential)]
    private readonly record struct Claim(long Sequence, int Kind, int DType, int Operation, int Root, long Gives, long Takes)
    {
        public bool Fits(Claim own) =>
            Kind == own.Kind && DType == own.DType && Operation == own.Operation && Root == own.Root && own.Takes == Gives;

        public override string ToString() =>
            $"number {Sequence}, {(CollectiveKind)Kind}{(DType < 0 ? "" : $" of {Gives} {(DType)DType}")}{(Root < 0 ? "" : $" from {Root}")}{((CollectiveKind)Kind is CollectiveKind.AllReduce or CollectiveKind.ReduceScatter ? $", {(ReduceOperation)Operation}" : "")}";
    }
}
