using System.Runtime.InteropServices;
using System.Text;

namespace ZEngine.Interop;

/// <summary>An error of MPI, with the library's own text.</summary>
public sealed class MpiException : Exception
{
    /// <summary>An error with a message.</summary>
    public MpiException(string message) : base(message) { }

    /// <summary>An error with a message and its cause.</summary>
    public MpiException(string message, Exception inner) : base(message, inner) { }

    /// <summary>An error without a message.</summary>
    public MpiException() { }
}

/// <summary>The calls of MPI that move bytes, bound at run time to whichever library the launcher belongs to.</summary>
/// <remarks>
/// One thread at a time (MPI_THREAD_SERIALIZED), except <see cref="Abort"/>. Libraries that take over the signals by which the runtime finds null
/// references (UCX does) are told not to, and what they took is put back after initialisation.
/// </remarks>
public sealed unsafe class Mpi
{
    /// <summary>Environment variable with the file of the MPI library.</summary>
    public const string LibraryVariable = "ZENGINE_LIBMPI";

    private const int VersionBytes = 8192, ErrorBytes = 8192, Success = 0;

    // Never plain libmpi.so: which library that is depends on the machine's alternatives.
    private static readonly string[] OpenMpiNames = ["libmpi.so.40", "libmpi.so.80"], MpichNames = ["libmpich.so.12", "libmpi.so.12", "libmpi_abi.so.1", "libmpi_abi.so.0"];

    private readonly delegate* unmanaged[Cdecl]<nint, nint, int, int*, int> _initThread;
    private readonly delegate* unmanaged[Cdecl]<int> _finalize;
    private readonly delegate* unmanaged[Cdecl]<int*, int> _isInitialized, _isFinalized;
    private readonly delegate* unmanaged[Cdecl]<nint, int*, int> _rank, _size;
    private readonly delegate* unmanaged[Cdecl]<nint, int, int> _abort;
    private readonly delegate* unmanaged[Cdecl]<void*, int, nint, int, int, nint, nint*, int> _send, _receive;
    private readonly delegate* unmanaged[Cdecl]<int, nint*, int*, nint, int> _testAll;
    private readonly delegate* unmanaged[Cdecl]<nint, nint, int> _setErrorHandler;
    private readonly delegate* unmanaged[Cdecl]<int, byte*, int*, int> _errorText;

    private Mpi(nint library, string path)
    {
        Abi = MpiAbi.Of(library, path);
        Path = path;
        nint Get(string name) => NativeLibrary.TryGetExport(library, name, out nint address) ? address : throw new NativeLibraryException($"{path}: {name} is missing; it is no MPI library.");
        _initThread = (delegate* unmanaged[Cdecl]<nint, nint, int, int*, int>)Get("MPI_Init_thread");
        _finalize = (delegate* unmanaged[Cdecl]<int>)Get("MPI_Finalize");
        _isInitialized = (delegate* unmanaged[Cdecl]<int*, int>)Get("MPI_Initialized");
        _isFinalized = (delegate* unmanaged[Cdecl]<int*, int>)Get("MPI_Finalized");
        _rank = (delegate* unmanaged[Cdecl]<nint, int*, int>)Get("MPI_Comm_rank");
        _size = (delegate* unmanaged[Cdecl]<nint, int*, int>)Get("MPI_Comm_size");
        _abort = (delegate* unmanaged[Cdecl]<nint, int, int>)Get("MPI_Abort");
        _send = (delegate* unmanaged[Cdecl]<void*, int, nint, int, int, nint, nint*, int>)Get("MPI_Isend");
        _receive = (delegate* unmanaged[Cdecl]<void*, int, nint, int, int, nint, nint*, int>)Get("MPI_Irecv");
        _testAll = (delegate* unmanaged[Cdecl]<int, nint*, int*, nint, int>)Get("MPI_Testall");
        _setErrorHandler = (delegate* unmanaged[Cdecl]<nint, nint, int>)Get("MPI_Comm_set_errhandler");
        _errorText = (delegate* unmanaged[Cdecl]<int, byte*, int*, int>)Get("MPI_Error_string");
        var version = (delegate* unmanaged[Cdecl]<byte*, int*, int>)Get("MPI_Get_library_version");
        byte* text = stackalloc byte[VersionBytes];
        int length = 0;
        _ = version(text, &length);
        Version = Encoding.UTF8.GetString(text, Math.Clamp(length, 0, VersionBytes)).Split('\n', ',')[0].TrimEnd('\0', ' ');
    }

    /// <summary>Constants of the library.</summary>
    public MpiAbi Abi { get; }

    /// <summary>The file that was loaded.</summary>
    public string Path { get; }

    /// <summary>The library's name and version in its own words.</summary>
    public string Version { get; }

    /// <summary>Loads the library of a launcher; nothing is initialised yet.</summary>
    /// <param name="prefersOpenMpi">Whether Open MPI's launcher started this process.</param>
    /// <exception cref="NativeLibraryException">There is none.</exception>
    public static Mpi Load(bool prefersOpenMpi)
    {
        Signals.SetNativeVariable("UCX_ERROR_SIGNALS", "");
        string? set = Environment.GetEnvironmentVariable(LibraryVariable);
        IEnumerable<string> names = set is { Length: > 0 } ? [set] : prefersOpenMpi ? OpenMpiNames.Concat(MpichNames) : MpichNames.Concat(OpenMpiNames);
        (nint library, string path) = Signals.KeepingFaultHandlers(() => NativeLibraries.LoadFirst(names));
        if (library == 0) throw new NativeLibraryException($"no MPI library could be loaded ({string.Join(", ", names)}); install Open MPI or MPICH, set {LibraryVariable}, or leave MPI away with ZENGINE_COMM=tcp.");
        return new Mpi(library, path);
    }

    /// <summary>Joins the world.</summary>
    /// <returns>This rank and the number of ranks.</returns>
    public (int Rank, int Size) Initialize()
    {
        int provided = 0, rank = 0, size = 0;
        int result = Signals.KeepingFaultHandlers(() =>
        {
            int given = 0;
            int code = _initThread(0, 0, Abi.ThreadSerialized, &given);
            return code == Success ? given : -Math.Abs(code);
        });
        provided = result;
        if (provided < 0) throw new MpiException($"MPI_Init_thread failed: {ErrorText(-provided)}.");
        if (provided < Abi.ThreadSerialized) throw new MpiException($"{Version} allows calls of the main thread alone (level {provided}); a build with thread support is needed.");
        Check(_setErrorHandler(Abi.CommWorld, Abi.ErrorsReturn), "MPI_Comm_set_errhandler");
        Check(_rank(Abi.CommWorld, &rank), "MPI_Comm_rank");
        Check(_size(Abi.CommWorld, &size), "MPI_Comm_size");
        return (rank, size);
    }

    /// <summary>Leaves the world; every rank does. Does nothing the second time.</summary>
    public void Leave()
    {
        int isInitialized = 0, isFinalized = 0;
        _ = _isInitialized(&isInitialized);
        _ = _isFinalized(&isFinalized);
        if (isInitialized != 0 && isFinalized == 0) Check(_finalize(), "MPI_Finalize");
    }

    /// <summary>Ends all ranks; does not return where the library keeps its word.</summary>
    public void Abort(int exitCode)
    {
        int isInitialized = 0, isFinalized = 0;
        _ = _isInitialized(&isInitialized);
        _ = _isFinalized(&isFinalized);
        if (isInitialized != 0 && isFinalized == 0) _ = _abort(Abi.CommWorld, exitCode);
    }

    /// <summary>Begins to send bytes.</summary>
    public nint Send(nint address, int bytes, int to, int tag)
    {
        nint request = 0;                                      // MPICH writes the lower half alone
        Check(_send((void*)address, bytes, Abi.Byte, to, tag, Abi.CommWorld, &request), "MPI_Isend");
        return request;
    }

    /// <summary>Begins to receive bytes.</summary>
    public nint Receive(nint address, int bytes, int from, int tag)
    {
        nint request = 0;
        Check(_receive((void*)address, bytes, Abi.Byte, from, tag, Abi.CommWorld, &request), "MPI_Irecv");
        return request;
    }

    /// <summary>Whether a transfer is done; drives those of all others on. A request that is done is gone.</summary>
    public bool Test(ref nint request)
    {
        int isDone = 0;
        nint own = request;
        Check(_testAll(1, &own, &isDone, Abi.StatusesIgnore), "MPI_Testall");
        if (isDone != 0) request = 0;
        return isDone != 0;
    }

    private void Check(int code, string call)
    {
        if (code != Success) throw new MpiException($"{call} failed: {ErrorText(code)}");
    }

    private string ErrorText(int code)
    {
        byte* text = stackalloc byte[ErrorBytes];
        int length = 0;
        return _errorText(code, text, &length) == Success ? Encoding.UTF8.GetString(text, Math.Clamp(length, 0, ErrorBytes)) : $"error {code}";
    }
}
