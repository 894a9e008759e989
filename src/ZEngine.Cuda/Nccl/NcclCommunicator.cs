using System.Runtime.InteropServices;
using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>Collectives between CUDA devices over NCCL, one device for each rank; tensors of the host go over another communicator of the same ranks.</summary>
/// <remarks>
/// A call on device tensors returns when it is queued: its result is there for whatever the device is given next, as with any op. Calls that were
/// begun run beside the device's other work until they are waited for. All are legal while a graph is captured, where all ranks capture alike, and
/// run again with it. Sums are in NCCL's order: the same for every run on the same machine, but not that of CPU ranks, and Max and
/// Min drop NaN. A collective that does not end, or of which NCCL reports an error, ends the world: see <see cref="NcclWatchdog"/>.
/// </remarks>
public sealed class NcclCommunicator : Communicator
{
    private readonly NcclWorld _nccl;
    private readonly Communicator _host;
    private readonly nint _handle;
    private readonly int _group;

    private NcclCommunicator(NcclWorld nccl, Communicator host, nint handle, int group) => (_nccl, _host, _handle, _group) = (nccl, host, handle, group);

    /// <inheritdoc/>
    public override int Rank => _host.Rank;

    /// <inheritdoc/>
    public override int Size => _host.Size;

    /// <inheritdoc/>
    public override string Name => $"NCCL {_nccl.Library.VersionText} and {_host.Name}";

    /// <inheritdoc/>
    public override FlightRecorder Recorder => _nccl.Recorder;

    /// <summary>How long a collective may take.</summary>
    public TimeSpan Timeout
    {
        get => _nccl.Timeout;
        set => _nccl.Timeout = value;
    }

    /// <summary>Whether ranks compare, over the host, what they are about to do before every collective of the devices; <c>ZENGINE_COMM_CHECK=1</c>.</summary>
    public bool IsChecked { get; set; } = Environment.GetEnvironmentVariable("ZENGINE_COMM_CHECK") == "1";

    /// <summary>NCCL's communicator.</summary>
    internal nint Handle => _handle;

    /// <summary>Why the world cannot be used any more; null while it can.</summary>
    public string? Failure => _nccl.Failure;

    /// <summary>Connects the devices of all ranks; every rank calls.</summary>
    /// <param name="host">The ranks, over which they agree on how to connect; stays the caller's, and must outlive this.</param>
    /// <param name="device">This rank's alone.</param>
    /// <param name="library">The same version everywhere.</param>
    /// <param name="timeout">How long a collective may take.</param>
    /// <param name="failed">Is told, on another thread, why the world cannot be used any more: is to end the job.</param>
    /// <exception cref="WorldMismatchException">Two ranks have one device, or versions differ: a table of who.</exception>
    /// <exception cref="CommunicatorException">The devices could not be connected.</exception>
    public static NcclCommunicator Join(Communicator host, CudaDevice device, Nccl library, TimeSpan timeout, Action<string> failed)
    {
        ArgumentNullException.ThrowIfNull(host);
        ArgumentNullException.ThrowIfNull(device);
        ArgumentNullException.ThrowIfNull(library);
        ArgumentNullException.ThrowIfNull(failed);
        WorldAgreement.RequireSame(host, ("NCCL", library.VersionText));
        if (!AllowsSharedDevices(library)) WorldAgreement.RequireDistinct(host, $"{HostIdentity.Value} {device.BusAddress}");
        var nccl = new NcclWorld(library, device, timeout, failed);
        try
        {
            var world = new NcclCommunicator(nccl, host, nccl.Initialize(ShareId(host, library), host.Rank, host.Size), 0);
            world.Verify();
            return world;
        }
        catch (Exception e)
        {
            nccl.Abort();
            nccl.Dispose();
            if (e is NcclException or TimeoutException) throw new CommunicatorException($"rank {host.Rank} of {host.Size}, {device} ({device.Description}): NCCL {library.VersionText} could not connect the devices: {e.Message}", e);
            throw;
        }
    }

    /// <inheritdoc/>
    public override Communicator? Split(int color, int key = 0)
    {
        // The host group first: where it cannot be made, no rank goes on to NCCL's.
        Communicator? host = _host.Split(color, key);
        (nint handle, int number) = _nccl.Split(_handle, color, key);
        return host is null ? null : new NcclCommunicator(_nccl, host, handle, number);
    }

    /// <inheritdoc/>
    public override void Abort(int exitCode, string reason)
    {
        _nccl.Abort();
        _host.Abort(exitCode, reason);
    }

    /// <inheritdoc/>
    protected override void Execute(Collective call)
    {
        if (IsOfHost(call)) Pass(call);
        else Enqueue(call).Wait();
    }

    /// <inheritdoc/>
    protected override CollectiveWork Begin(Collective call) => IsOfHost(call) ? base.Begin(call) : Enqueue(call);

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (_group == 0) _nccl.Dispose();                      // groups only borrow
        base.Dispose(disposing);
    }

    /// <summary>NCCL 2.30 lets ranks share a device where it is told to, for tests on one GPU.</summary>
    private static bool AllowsSharedDevices(Nccl library) => library.Version >= 23000 && Environment.GetEnvironmentVariable("NCCL_MULTI_RANK_GPU_ENABLE") == "1";

    private static NcclUniqueId ShareId(Communicator host, Nccl library)
    {
        NcclUniqueId id = host.Rank == 0 ? library.NewUniqueId() : default;
        using Tensor bytes = TensorScope.Release(Tensor.From<byte>(MemoryMarshal.AsBytes(new ReadOnlySpan<NcclUniqueId>(in id)), [NcclUniqueId.Bytes], Device.Cpu));
        host.Broadcast(bytes);
        return MemoryMarshal.Read<NcclUniqueId>(bytes.ToArray<byte>());
    }

    /// <summary>A first sum that is known, before anybody relies on one.</summary>
    private void Verify()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor sum = Tensor.From<float>([Rank + 1, 1], [2], _nccl.Device);
        AllReduce(sum);
        float[] got = sum.ToArray<float>(), expected = [Size * (Size + 1) / 2, Size];
        if (!got.SequenceEqual(expected)) throw new CommunicatorException($"rank {Rank} of {Size}: the first sum over the devices is {got[0]}, {got[1]} and must be {expected[0]}, {expected[1]}: NCCL {_nccl.Library.VersionText} does not work between these devices.");
        _host.Barrier();
    }

    /// <summary>NCCL does not look at what other ranks are about to do; on demand the ranks compare it first, at the price of an exchange.</summary>
    private CollectiveWork Enqueue(Collective call)
    {
        if (IsChecked && call.Kind is not (CollectiveKind.Send or CollectiveKind.Receive))
            WorldAgreement.RequireSame(_host, ("collective", $"{call.Kind} of {call.DType}, {call.Operation}, root {call.Peer}, {(call.Kind == CollectiveKind.AllToAll ? "" : string.Join(' ', call.SourceCounts ?? call.DestinationCounts ?? [call.Count]))} elements"));
        return _nccl.Enqueue(_group, call, () => Issue(call), _handle);
    }

    private bool IsOfHost(Collective call)
    {
        if ((call.Source ?? call.Destination)?.Device is not { } device || device == Device.Cpu) return true;
        return device == _nccl.Device ? false : throw new ArgumentException($"{call.Kind}: {call.Source ?? call.Destination} is not on {_nccl.Device}, the device of rank {Rank}.");
    }

    private void Pass(Collective call)
    {
        switch (call.Kind)
        {
            case CollectiveKind.AllReduce: _host.AllReduce(call.Source!, call.Operation); break;
            case CollectiveKind.ReduceScatter: _host.ReduceScatter(call.Source!, call.Destination!, call.SourceCounts, call.Operation); break;
            case CollectiveKind.AllGather: _host.AllGather(call.Source!, call.Destination!, call.DestinationCounts); break;
            case CollectiveKind.AllToAll: _host.AllToAll(call.Source!, call.Destination!, call.SourceCounts, call.DestinationCounts); break;
            case CollectiveKind.Broadcast: _host.Broadcast(call.Source!, call.Peer); break;
            case CollectiveKind.Send: _host.Send(call.Source!, call.Peer); break;
            case CollectiveKind.Receive: _host.Receive(call.Destination!, call.Peer); break;
            default: _host.Barrier(); break;
        }
    }

    /// <summary>Gives NCCL the call.</summary>
    private void Issue(Collective call)
    {
        (Nccl nccl, nint stream) = (_nccl.Library, _nccl.Stream.Value);
        NcclType type = TypeOf(call.DType!.Value);
        long count = call.Count;
        switch (call.Kind)
        {
            case CollectiveKind.AllReduce: nccl.AllReduce(call.Source!.Address, call.Destination!.Address, count, type, OperationOf(call.Operation), _handle, stream); break;
            case CollectiveKind.ReduceScatter: ScatterReduced(call, type, stream); break;
            case CollectiveKind.AllGather: GatherAll(call, type, stream); break;
            case CollectiveKind.AllToAll: DealOut(call, type, stream); break;
            case CollectiveKind.Broadcast: nccl.Broadcast(call.Source!.Address, call.Source.Address, count, type, call.Peer, _handle, stream); break;
            case CollectiveKind.Send: nccl.Send(call.Source!.Address, count, type, call.Peer, _handle, stream); break;
            default: nccl.Receive(call.Destination!.Address, count, type, call.Peer, _handle, stream); break;
        }
    }

    private void ScatterReduced(Collective call, NcclType type, nint stream)
    {
        (Tensor source, Tensor destination, IReadOnlyList<long> counts) = (call.Source!, call.Destination!, call.SourceCounts!);
        if (AreEqual(counts))
        {
            _nccl.Library.ReduceScatter(source.Address, destination.Address, counts[0], type, OperationOf(call.Operation), _handle, stream);
            return;
        }
        // NCCL's own parts are equal; others are a reduction to each rank.
        InGroup(counts, source.DType.Size, (rank, offset) =>
            _nccl.Library.Reduce(source.Address + offset, rank == Rank ? destination.Address : 0, counts[rank], type, OperationOf(call.Operation), rank, _handle, stream));
    }

    private void GatherAll(Collective call, NcclType type, nint stream)
    {
        (Tensor source, Tensor destination, IReadOnlyList<long> counts) = (call.Source!, call.Destination!, call.DestinationCounts!);
        if (AreEqual(counts))
        {
            _nccl.Library.AllGather(source.Address, destination.Address, counts[0], type, _handle, stream);
            return;
        }
        InGroup(counts, source.DType.Size, (rank, offset) =>
            _nccl.Library.Broadcast(rank == Rank ? source.Address : destination.Address + offset, destination.Address + offset, counts[rank], type, rank, _handle, stream));
    }

    private void DealOut(Collective call, NcclType type, nint stream)
    {
        (Tensor source, Tensor destination) = (call.Source!, call.Destination!);
        int size = source.DType.Size;
        long from = 0, to = 0;
        _nccl.Library.BeginGroup();
        for (int rank = 0; rank < Size; rank++)
        {
            (long sent, long taken) = (call.SourceCounts![rank], call.DestinationCounts![rank]);
            if (sent > 0) _nccl.Library.Send(source.Address + (nint)(from * size), sent, type, rank, _handle, stream);
            if (taken > 0) _nccl.Library.Receive(destination.Address + (nint)(to * size), taken, type, rank, _handle, stream);
            (from, to) = (from + sent, to + taken);
        }
        _nccl.Library.EndGroup();
    }

    private void InGroup(IReadOnlyList<long> counts, int size, Action<int, nint> issue)
    {
        long start = 0;
        _nccl.Library.BeginGroup();
        for (int rank = 0; rank < Size; start += counts[rank++])
            if (counts[rank] > 0) issue(rank, (nint)(start * size));
        _nccl.Library.EndGroup();
    }

    private static bool AreEqual(IReadOnlyList<long> counts)
    {
        for (int i = 1; i < counts.Count; i++)
            if (counts[i] != counts[0]) return false;
        return true;
    }

    private static NcclType TypeOf(DType dtype) => dtype switch
    {
        DType.Float32 => NcclType.Float32,
        DType.BFloat16 => NcclType.BFloat16,
        DType.Float16 => NcclType.Float16,
        DType.Int32 => NcclType.Int32,
        DType.Int64 => NcclType.Int64,
        DType.UInt8 => NcclType.UInt8,
        _ => NcclType.Int8,
    };

    private static NcclOperation OperationOf(ReduceOperation operation) => operation switch
    {
        ReduceOperation.Max => NcclOperation.Max,
        ReduceOperation.Min => NcclOperation.Min,
        _ => NcclOperation.Sum,
    };
}
