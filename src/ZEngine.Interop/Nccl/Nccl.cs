using System.Runtime.InteropServices;

namespace ZEngine.Interop;

/// <summary>An error of NCCL, with the library's own text.</summary>
public sealed class NcclException : Exception
{
    /// <summary>An error with a message.</summary>
    public NcclException(string message) : base(message) { }

    /// <summary>An error with a message and its cause.</summary>
    public NcclException(string message, Exception inner) : base(message, inner) { }

    /// <summary>An error without a message.</summary>
    public NcclException() { }
}

/// <summary>The calls of NCCL, bound at run time. Communicators are non-blocking: calls may return before they are done, see <see cref="Wait"/>.</summary>
public sealed unsafe class Nccl
{
    /// <summary>Environment variable with the file of the library.</summary>
    public const string LibraryVariable = "ZENGINE_NCCL_LIB";

    private const int LeastVersion = 21800, PollMilliseconds = 1;

    private readonly delegate* unmanaged[Cdecl]<NcclUniqueId*, int> _uniqueId;
    private readonly delegate* unmanaged[Cdecl]<nint*, int, NcclUniqueId, int, NcclConfig*, int> _initialize;
    private readonly delegate* unmanaged[Cdecl]<nint, int, int, nint*, NcclConfig*, int> _split;
    private readonly delegate* unmanaged[Cdecl]<nint, int> _finalize, _destroy, _abort;
    private readonly delegate* unmanaged[Cdecl]<nint, int*, int> _asyncError;
    private readonly delegate* unmanaged[Cdecl]<int, nint> _errorText;
    private readonly delegate* unmanaged[Cdecl]<nint, nint> _lastError;
    private readonly delegate* unmanaged[Cdecl]<nint, nint, nuint, int, int, nint, nint, int> _allReduce, _reduceScatter;
    private readonly delegate* unmanaged[Cdecl]<nint, nint, nuint, int, nint, nint, int> _allGather;
    private readonly delegate* unmanaged[Cdecl]<nint, nint, nuint, int, int, nint, nint, int> _broadcast;
    private readonly delegate* unmanaged[Cdecl]<nint, nint, nuint, int, int, int, nint, nint, int> _reduce;
    private readonly delegate* unmanaged[Cdecl]<nint, nuint, int, int, nint, nint, int> _send, _receive;
    private readonly delegate* unmanaged[Cdecl]<int> _groupStart, _groupEnd;

    private Nccl(nint library, string path)
    {
        Path = path;
        nint Get(string name) => NativeLibrary.TryGetExport(library, name, out nint address) ? address : throw new NativeLibraryException($"{path}: {name} is missing; NCCL 2.18 or later is needed.");
        int version = 0;
        var getVersion = (delegate* unmanaged[Cdecl]<int*, int>)Get("ncclGetVersion");
        if (getVersion(&version) != 0 || version < LeastVersion) throw new NativeLibraryException($"{path}: NCCL {version} is too old; 2.18 ({LeastVersion}) or later is needed.");
        Version = version;
        _uniqueId = (delegate* unmanaged[Cdecl]<NcclUniqueId*, int>)Get("ncclGetUniqueId");
        _initialize = (delegate* unmanaged[Cdecl]<nint*, int, NcclUniqueId, int, NcclConfig*, int>)Get("ncclCommInitRankConfig");
        _split = (delegate* unmanaged[Cdecl]<nint, int, int, nint*, NcclConfig*, int>)Get("ncclCommSplit");
        _finalize = (delegate* unmanaged[Cdecl]<nint, int>)Get("ncclCommFinalize");
        _destroy = (delegate* unmanaged[Cdecl]<nint, int>)Get("ncclCommDestroy");
        _abort = (delegate* unmanaged[Cdecl]<nint, int>)Get("ncclCommAbort");
        _asyncError = (delegate* unmanaged[Cdecl]<nint, int*, int>)Get("ncclCommGetAsyncError");
        _errorText = (delegate* unmanaged[Cdecl]<int, nint>)Get("ncclGetErrorString");
        _lastError = (delegate* unmanaged[Cdecl]<nint, nint>)Get("ncclGetLastError");
        _allReduce = (delegate* unmanaged[Cdecl]<nint, nint, nuint, int, int, nint, nint, int>)Get("ncclAllReduce");
        _reduceScatter = (delegate* unmanaged[Cdecl]<nint, nint, nuint, int, int, nint, nint, int>)Get("ncclReduceScatter");
        _allGather = (delegate* unmanaged[Cdecl]<nint, nint, nuint, int, nint, nint, int>)Get("ncclAllGather");
        _broadcast = (delegate* unmanaged[Cdecl]<nint, nint, nuint, int, int, nint, nint, int>)Get("ncclBroadcast");
        _reduce = (delegate* unmanaged[Cdecl]<nint, nint, nuint, int, int, int, nint, nint, int>)Get("ncclReduce");
        _send = (delegate* unmanaged[Cdecl]<nint, nuint, int, int, nint, nint, int>)Get("ncclSend");
        _receive = (delegate* unmanaged[Cdecl]<nint, nuint, int, int, nint, nint, int>)Get("ncclRecv");
        _groupStart = (delegate* unmanaged[Cdecl]<int>)Get("ncclGroupStart");
        _groupEnd = (delegate* unmanaged[Cdecl]<int>)Get("ncclGroupEnd");
    }

    /// <summary>The file that was loaded.</summary>
    public string Path { get; }

    /// <summary>For example 21805 for 2.18.5.</summary>
    public int Version { get; }

    /// <summary>For example 2.18.5.</summary>
    public string VersionText => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{Version / 10000}.{Version / 100 % 100}.{Version % 100}");

    /// <summary>Loads the library.</summary>
    /// <exception cref="NativeLibraryException">There is none, or it is too old.</exception>
    public static Nccl Load()
    {
        string? set = Environment.GetEnvironmentVariable(LibraryVariable);
        // A new major version has another name, and is refused by that.
        return Load(set is { Length: > 0 } ? [set] : ["libnccl.so.2", .. NativeLibraries.WheelFolders("nccl").Select(folder => System.IO.Path.Combine(folder, "libnccl.so.2")).Where(File.Exists)]);
    }

    internal static Nccl Load(IReadOnlyList<string> names)
    {
        (nint library, string path) = NativeLibraries.LoadFirst(names);
        return library != 0 ? new Nccl(library, path) : throw new NativeLibraryException($"NCCL could not be loaded ({string.Join(", ", names)}); install it, or name its file with {LibraryVariable}.");
    }

    /// <summary>A name for a communicator to be.</summary>
    public NcclUniqueId NewUniqueId()
    {
        NcclUniqueId id = default;
        Check(_uniqueId(&id), 0, "ncclGetUniqueId");
        return id;
    }

    /// <summary>Begins to make a communicator; every rank does. See <see cref="Wait"/>.</summary>
    public nint Initialize(NcclUniqueId id, int rank, int size)
    {
        nint communicator = 0;
        NcclConfig config = NcclConfig.NonBlocking;
        Check(_initialize(&communicator, size, id, rank, &config), 0, "ncclCommInitRankConfig");
        return communicator;
    }

    /// <summary>Begins to part a communicator; 0 for a rank of no group (<paramref name="color"/> -1).</summary>
    public nint Split(nint communicator, int color, int key)
    {
        nint part = 0;
        NcclConfig config = NcclConfig.NonBlocking;
        Check(_split(communicator, color, key, &part, &config), communicator, "ncclCommSplit");
        return part;
    }

    /// <summary>Waits until what was begun on a communicator is done or has failed.</summary>
    /// <exception cref="TimeoutException">It took longer; the communicator is to be aborted.</exception>
    /// <exception cref="NcclException">It failed, here or on another rank.</exception>
    public void Wait(nint communicator, TimeSpan timeout, string what)
    {
        long begin = System.Diagnostics.Stopwatch.GetTimestamp();
        while (AsyncResult(communicator) is var result)
        {
            if (result == NcclResult.Success) return;
            if (result != NcclResult.InProgress) Check((int)result, communicator, what);
            if (System.Diagnostics.Stopwatch.GetElapsedTime(begin) > timeout) throw new TimeoutException($"{what} was not done within {timeout.TotalSeconds:0.#} s.");
            Thread.Sleep(PollMilliseconds);
        }
    }

    /// <summary>How a communicator is: done, at it, or failed.</summary>
    public NcclResult AsyncResult(nint communicator)
    {
        int error = 0;
        int code = _asyncError(communicator, &error);
        return (NcclResult)(code != 0 ? code : error);
    }

    /// <summary>Ends a communicator well: finalize, wait, destroy.</summary>
    public void Close(nint communicator, TimeSpan timeout)
    {
        Check(_finalize(communicator), communicator, "ncclCommFinalize");
        Wait(communicator, timeout, "ncclCommFinalize");
        Check(_destroy(communicator), communicator, "ncclCommDestroy");
    }

    /// <summary>Ends a communicator on which something went wrong; the only way from another thread.</summary>
    /// <returns>Whether the library took it; there is nothing more to be done where it did not.</returns>
    public bool Abort(nint communicator) => (NcclResult)_abort(communicator) is NcclResult.Success or NcclResult.InProgress;

    /// <summary>The library's text for a result.</summary>
    public string Describe(NcclResult result) => Marshal.PtrToStringUTF8(_errorText((int)result)) ?? "";

    /// <summary>Puts an all-reduce into a stream.</summary>
    public void AllReduce(nint source, nint destination, long count, NcclType type, NcclOperation operation, nint communicator, nint stream) =>
        Check(_allReduce(source, destination, (nuint)count, (int)type, (int)operation, communicator, stream), communicator, "ncclAllReduce");

    /// <summary>Puts a reduce-scatter into a stream; <paramref name="count"/> elements for each rank.</summary>
    public void ReduceScatter(nint source, nint destination, long count, NcclType type, NcclOperation operation, nint communicator, nint stream) =>
        Check(_reduceScatter(source, destination, (nuint)count, (int)type, (int)operation, communicator, stream), communicator, "ncclReduceScatter");

    /// <summary>Puts an all-gather into a stream; <paramref name="count"/> elements of each rank.</summary>
    public void AllGather(nint source, nint destination, long count, NcclType type, nint communicator, nint stream) =>
        Check(_allGather(source, destination, (nuint)count, (int)type, communicator, stream), communicator, "ncclAllGather");

    /// <summary>Puts a broadcast into a stream.</summary>
    public void Broadcast(nint source, nint destination, long count, NcclType type, int root, nint communicator, nint stream) =>
        Check(_broadcast(source, destination, (nuint)count, (int)type, root, communicator, stream), communicator, "ncclBroadcast");

    /// <summary>Puts a reduction to one rank into a stream; the others' <paramref name="destination"/> is not looked at.</summary>
    public void Reduce(nint source, nint destination, long count, NcclType type, NcclOperation operation, int root, nint communicator, nint stream) =>
        Check(_reduce(source, destination, (nuint)count, (int)type, (int)operation, root, communicator, stream), communicator, "ncclReduce");

    /// <summary>Puts a send into a stream.</summary>
    public void Send(nint source, long count, NcclType type, int to, nint communicator, nint stream) =>
        Check(_send(source, (nuint)count, (int)type, to, communicator, stream), communicator, "ncclSend");

    /// <summary>Puts a receive into a stream.</summary>
    public void Receive(nint destination, long count, NcclType type, int from, nint communicator, nint stream) =>
        Check(_receive(destination, (nuint)count, (int)type, from, communicator, stream), communicator, "ncclRecv");

    /// <summary>What follows is one operation, until <see cref="EndGroup"/>.</summary>
    public void BeginGroup() => Check(_groupStart(), 0, "ncclGroupStart");

    /// <summary>Ends what <see cref="BeginGroup"/> began.</summary>
    public void EndGroup() => Check(_groupEnd(), 0, "ncclGroupEnd");

    private void Check(int code, nint communicator, string call)
    {
        if (code is (int)NcclResult.Success or (int)NcclResult.InProgress) return;
        string detail = Marshal.PtrToStringUTF8(_lastError(communicator)) is { Length: > 0 } last ? $" ({last})" : "";
        throw new NcclException($"{call} failed: {Marshal.PtrToStringUTF8(_errorText(code))}{detail}.");
    }
}
