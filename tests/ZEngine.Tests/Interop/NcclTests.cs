using ZEngine.Interop;

namespace ZEngine.Tests.Interop;

/// <summary>The binding to NCCL against a stub in C: what arrives there is what was meant, member by member.</summary>
public sealed unsafe class NcclTests : IDisposable
{
    private static readonly nint Communicator = unchecked((nint)0x1234567890), Stream = 0x55, Source = unchecked((nint)0x7000_0000_0010), Destination = unchecked((nint)0x7000_0000_0020);

    private static readonly NativeStub Stub = new("libnccl_stub.c");

    private readonly Nccl _nccl;

    public NcclTests()
    {
        Set(21805, 0, 0);
        _nccl = Nccl.Load([Stub.Path]);
    }

    public void Dispose() => Set(21805, 0, 0);

    private static void Set(int version, int polls, int failure)
    {
        if (Stub.IsBuilt) ((delegate* unmanaged<int, int, int, void>)Stub.Symbol("stub_set"))(version, polls, failure);
    }

    private static long[] Seen()
    {
        var seen = (delegate* unmanaged<int, long>)Stub.Symbol("stub_seen");
        var values = new long[8];
        for (int i = 0; i < values.Length; i++) values[i] = seen(i);
        return values;
    }

    [Fact]
    public void Identity_and_configuration_arrive_whole()
    {
        NcclUniqueId id = _nccl.NewUniqueId();
        Assert.Equal(Communicator, _nccl.Initialize(id, rank: 3, size: 8));
        Assert.Equal([1, 8, 3, 0, 0, 0, 0, 0], Seen());
        var arrived = new ReadOnlySpan<byte>((void*)((delegate* unmanaged<nint>)Stub.Symbol("stub_id"))(), NcclUniqueId.Bytes);
        Assert.Equal(Enumerable.Range(0, NcclUniqueId.Bytes).Select(i => (byte)(i ^ 0x5a)), arrived.ToArray());

        Assert.Equal(((delegate* unmanaged<int>)Stub.Symbol("stub_config_bytes"))(), sizeof(NcclConfig));
        byte* config = (byte*)((delegate* unmanaged<nint>)Stub.Symbol("stub_config"))();
        Assert.Equal((48ul, 0xcafebeefu, 21805, 0), (*(ulong*)config, *(uint*)(config + 8), *(int*)(config + 12), *(int*)(config + 16)));
        // Every number that is not set reads "undefined", the former padding of 2.18 at 44 too; names are null.
        foreach (int at in (int[])[20, 24, 28, 40, 44, 56, 60, 64, 68, 72, 76, 80, 84, 88, 92]) Assert.Equal(int.MinValue, *(int*)(config + at));
        foreach (int at in (int[])[32, 48]) Assert.Equal(0, *(long*)(config + at));
    }

    [Fact]
    public void Collectives_arrive_argument_by_argument()
    {
        const long Count = 5_000_000_000;                      // more than 32 bits
        _nccl.AllReduce(Source, Destination, Count, NcclType.BFloat16, NcclOperation.Max, Communicator, Stream);
        Assert.Equal([6, Source, Destination, Count, 9, 2, Communicator, Stream], Seen());
        _nccl.ReduceScatter(Source, Destination, Count, NcclType.Float32, NcclOperation.Sum, Communicator, Stream);
        Assert.Equal([7, Source, Destination, Count, 7, 0, Communicator, Stream], Seen());
        _nccl.AllGather(Source, Destination, Count, NcclType.UInt8, Communicator, Stream);
        Assert.Equal([8, Source, Destination, Count, 1, 0, Communicator, Stream], Seen());
        _nccl.Broadcast(Source, Destination, Count, NcclType.Int64, 2, Communicator, Stream);
        Assert.Equal([9, Source, Destination, Count, 4, 2, Communicator, Stream], Seen());
        _nccl.Send(Source, Count, NcclType.Float16, 5, Communicator, Stream);
        Assert.Equal([10, Source, 0, Count, 6, 5, Communicator, Stream], Seen());
        _nccl.Receive(Destination, Count, NcclType.Int32, 6, Communicator, Stream);
        Assert.Equal([11, 0, Destination, Count, 2, 6, Communicator, Stream], Seen());
        _nccl.Reduce(Source, Destination, Count, NcclType.Float32, NcclOperation.Min, 7, Communicator, Stream);
        Assert.Equal([14, Source, Destination, Count, 7, 307, Communicator, Stream], Seen());
        _nccl.BeginGroup();
        Assert.Equal(12, Seen()[0]);
        _nccl.EndGroup();
        Assert.Equal(13, Seen()[0]);
        Assert.Equal(0x77, _nccl.Split(Communicator, 1, 4));
        Assert.Equal([2, Communicator, 1, 4], Seen()[..4]);
        Assert.Equal(0, _nccl.Split(Communicator, -1, 0));
        Assert.Equal("2.18.5", _nccl.VersionText);
        Assert.True(_nccl.Abort(Communicator));
        Assert.Equal([5, Communicator], Seen()[..2]);
    }

    [Fact]
    public void Waiting_asks_until_done_failed_or_late()
    {
        Set(21805, 3, 0);
        Assert.Equal(NcclResult.InProgress, _nccl.AsyncResult(Communicator));
        _nccl.Wait(Communicator, TimeSpan.FromSeconds(10), "test");
        _nccl.Close(Communicator, TimeSpan.FromSeconds(10));
        Assert.Equal([4, Communicator], Seen()[..2]);
        Set(21805, 2, 6);
        Assert.Equal("test failed: remote process exited (the last words).", Assert.Throws<NcclException>(() => _nccl.Wait(Communicator, TimeSpan.FromSeconds(10), "test")).Message);
        Assert.Throws<NcclException>(() => _nccl.AllReduce(Source, Destination, 1, NcclType.Float32, NcclOperation.Sum, Communicator, Stream));
        Set(21805, int.MaxValue, 0);
        Assert.Throws<TimeoutException>(() => _nccl.Wait(Communicator, TimeSpan.FromMilliseconds(20), "test"));
    }

    [Fact]
    public void Library_that_is_missing_too_old_or_no_NCCL_is_refused()
    {
        Assert.Contains("could not be loaded", Assert.Throws<NativeLibraryException>(() => Nccl.Load(["libnothing-of-this-name.so"])).Message, StringComparison.Ordinal);
        Set(21709, 0, 0);
        Assert.Contains("NCCL 21709 is too old", Assert.Throws<NativeLibraryException>(() => Nccl.Load([Stub.Path])).Message, StringComparison.Ordinal);
    }
}
