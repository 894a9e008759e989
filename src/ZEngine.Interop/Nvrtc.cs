using System.Runtime.InteropServices;
using System.Text;

namespace ZEngine.Interop;

/// <summary>One source file and how it is to be compiled.</summary>
public sealed record CompileRequest
{
    /// <summary>The name NVRTC writes into messages and line tables, such as <c>SelectiveScan.cu</c>.</summary>
    public required string Name { get; init; }

    /// <summary>The source.</summary>
    public required string Source { get; init; }

    /// <summary>Headers by the path under which they are included, such as <c>common/Types.cuh</c>.</summary>
    public IReadOnlyDictionary<string, string> Includes { get; init; } = new Dictionary<string, string>();

    /// <summary>Template instances wanted, such as <c>rms_norm_forward&lt;f32&gt;</c>.</summary>
    public IReadOnlyList<string> NameExpressions { get; init; } = [];

    /// <summary>
    /// The architecture: <c>sm_80</c> gives PTX and machine code with ptxas' report, <c>compute_80</c> PTX alone.
    /// </summary>
    public string Architecture { get; init; } = "sm_80";

    /// <summary>Further options. <c>-lineinfo</c> and <c>--std=c++17</c> are always given.</summary>
    public IReadOnlyList<string> Options { get; init; } = [];
}

/// <summary>NVRTC, the run-time compiler of CUDA C++. It needs no GPU.</summary>
public sealed unsafe class Nvrtc
{
    private static readonly Lock Gate = new();
    private static Nvrtc? s_loaded;

    private readonly nint _library;
    private readonly Lazy<Nvrtc> _debug;
    private readonly delegate* unmanaged<int, byte*> _getErrorString;
    private readonly delegate* unmanaged<nint*, byte*, byte*, int, byte**, byte**, int> _createProgram;
    private readonly delegate* unmanaged<nint*, int> _destroyProgram;
    private readonly delegate* unmanaged<nint, int, byte**, int> _compileProgram;
    private readonly delegate* unmanaged<nint, byte*, int> _addNameExpression;
    private readonly delegate* unmanaged<nint, byte*, byte**, int> _getLoweredName;

    private Nvrtc(nint library, string path)
    {
        _library = library;
        LibraryPath = path;
        _debug = new Lazy<Nvrtc>(SecondCopy);
        _getErrorString = (delegate* unmanaged<int, byte*>)Export("nvrtcGetErrorString");
        _createProgram = (delegate* unmanaged<nint*, byte*, byte*, int, byte**, byte**, int>)Export("nvrtcCreateProgram");
        _destroyProgram = (delegate* unmanaged<nint*, int>)Export("nvrtcDestroyProgram");
        _compileProgram = (delegate* unmanaged<nint, int, byte**, int>)Export("nvrtcCompileProgram");
        _addNameExpression = (delegate* unmanaged<nint, byte*, int>)Export("nvrtcAddNameExpression");
        _getLoweredName = (delegate* unmanaged<nint, byte*, byte**, int>)Export("nvrtcGetLoweredName");
        int major, minor;
        Check(((delegate* unmanaged<int*, int*, int>)Export("nvrtcVersion"))(&major, &minor), "nvrtcVersion");
        Version = new Version(major, minor);
        int count;
        Check(((delegate* unmanaged<int*, int>)Export("nvrtcGetNumSupportedArchs"))(&count), "nvrtcGetNumSupportedArchs");
        int[] architectures = new int[count];
        fixed (int* pointer = architectures)
            Check(((delegate* unmanaged<int*, int>)Export("nvrtcGetSupportedArchs"))(pointer), "nvrtcGetSupportedArchs");
        Architectures = architectures;
    }

    /// <summary>NVRTC's version.</summary>
    public Version Version { get; }

    /// <summary>The architectures it compiles for, as 80 for <c>sm_80</c>.</summary>
    public IReadOnlyList<int> Architectures { get; }

    /// <summary>The file it was loaded from.</summary>
    public string LibraryPath { get; }

    /// <summary>The NVRTC of this machine.</summary>
    /// <exception cref="NativeLibraryException">There is none; the message says where it was looked for and how to get it.</exception>
    public static Nvrtc Load()
    {
        lock (Gate)
        {
            if (s_loaded is not null) return s_loaded;
            var failures = new List<string>();
            (nint handle, string path) = NativeLibraries.LoadFirst(NativeLibraries.NvrtcCandidates(), NativeLibraries.PreloadBuiltins, failures);
            if (handle != 0) return s_loaded = new Nvrtc(handle, path);
            throw new NativeLibraryException(
                $"NVRTC, the CUDA run-time compiler, was not found ({string.Join("; ", failures)}). It needs no GPU. Install the CUDA "
                + "toolkit 12 or 13 or the Python wheel nvidia-cuda-nvrtc-cu12, or on Debian run tests/fetch-cuda.sh, or set "
                + $"{NativeLibraries.NvrtcVariable} to its file or folder.");
        }
    }

    /// <summary>Compiles a source.</summary>
    /// <remarks>A request with <c>-G</c> leaves no trace in later ones, although NVRTC alone would go on without its optimiser.</remarks>
    /// <exception cref="NvrtcException">The source has errors: the message is NVRTC's log, unchanged.</exception>
    public ModuleImage Compile(CompileRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        return request.Options.Any(option => option is "-G" or "--device-debug") ? _debug.Value.CompileHere(request) : CompileHere(request);
    }

    /// <summary>The same library a second time, under another name and so with memory of its own.</summary>
    /// <remarks>
    /// NVRTC keeps <c>-G</c> for the rest of the process (seen with 12.4): whatever is compiled after it has fewer functions inlined, larger
    /// stack frames and spills, and nothing says so. No option takes it back.
    /// </remarks>
    private Nvrtc SecondCopy()
    {
        string copy = Path.Combine(Path.GetTempPath(), $"zengine-{Guid.NewGuid():N}-{Path.GetFileName(LibraryPath)}");
        File.Copy(File.Exists(LibraryPath) ? LibraryPath : LoadedFile(), copy);
        try
        {
            return new Nvrtc(NativeLibrary.Load(copy), LibraryPath);
        }
        finally
        {
            if (!OperatingSystem.IsWindows()) File.Delete(copy);   // Windows keeps the file of a loaded library
        }
    }

    /// <summary>Where the loader found a library that was asked for by its bare name.</summary>
    private string LoadedFile()
    {
        using var process = System.Diagnostics.Process.GetCurrentProcess();
        return process.Modules.Cast<System.Diagnostics.ProcessModule>().Select(module => module.FileName).FirstOrDefault(file => Path.GetFileName(file).StartsWith(LibraryPath, StringComparison.Ordinal))
            ?? throw new NativeLibraryException($"{LibraryPath} is loaded, but its file was not found; set {NativeLibraries.NvrtcVariable} to it to compile with -G.");
    }

    private ModuleImage CompileHere(CompileRequest request)
    {
        using var strings = new NativeStrings();
        (string path, string text)[] includes = [.. request.Includes.Select(pair => (pair.Key, pair.Value))];
        byte** headers = strings.Array(includes.Select(i => i.text)), names = strings.Array(includes.Select(i => i.path));
        nint program;
        Check(_createProgram(&program, strings.Add(request.Source), strings.Add(request.Name), includes.Length, headers, names), "nvrtcCreateProgram");
        try
        {
            foreach (string expression in request.NameExpressions)
                Check(_addNameExpression(program, strings.Add(expression)), $"nvrtcAddNameExpression({expression})");
            List<string> options = OptionsOf(request);
            int result = _compileProgram(program, options.Count, strings.Array(options));
            string log = Text(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog");
            if (result != 0)
                throw new NvrtcException(log.Length > 0 ? log : $"nvrtcCompileProgram({request.Name}): {ErrorString(result)}", log);
            return new ModuleImage
            {
                Name = request.Name,
                Architecture = request.Architecture,
                Ptx = Text(program, "nvrtcGetPTXSize", "nvrtcGetPTX"),
                Cubin = IsReal(request.Architecture) ? Bytes(program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN") : [],
                LoweredNames = LoweredNames(program, strings, request.NameExpressions),
                Resources = PtxasLog.Parse(log),
                Log = log,
            };
        }
        finally
        {
            _ = _destroyProgram(&program);
        }
    }

    internal static List<string> OptionsOf(CompileRequest request)
    {
        var options = new List<string> { $"--gpu-architecture={request.Architecture}", "-lineinfo", "--std=c++17" };
        if (IsReal(request.Architecture)) options.Add("--ptxas-options=-v");
        options.AddRange(request.Options);
        return options;
    }

    private static bool IsReal(string architecture) => architecture.StartsWith("sm_", StringComparison.Ordinal);

    private Dictionary<string, string> LoweredNames(nint program, NativeStrings strings, IReadOnlyList<string> expressions)
    {
        var names = new Dictionary<string, string>();
        foreach (string expression in expressions)
        {
            byte* name;
            Check(_getLoweredName(program, strings.Add(expression), &name), $"nvrtcGetLoweredName({expression})");
            names[expression] = Marshal.PtrToStringUTF8((nint)name)!;
        }
        return names;
    }

    private byte[] Bytes(nint program, string sizeCall, string dataCall)
    {
        nuint size;
        Check(((delegate* unmanaged<nint, nuint*, int>)Export(sizeCall))(program, &size), sizeCall);
        byte[] data = new byte[size];
        fixed (byte* pointer = data)
            Check(((delegate* unmanaged<nint, byte*, int>)Export(dataCall))(program, pointer), dataCall);
        return data;
    }

    private string Text(nint program, string sizeCall, string dataCall) =>
        Encoding.UTF8.GetString(Bytes(program, sizeCall, dataCall)).TrimEnd('\0');

    private nint Export(string name) =>
        NativeLibrary.TryGetExport(_library, name, out nint address)
            ? address
            : throw new NativeLibraryException($"{LibraryPath} has no function {name}; NVRTC 12 or 13 is needed.");

    private string ErrorString(int result) => Marshal.PtrToStringUTF8((nint)_getErrorString(result)) ?? $"error {result}";

    private void Check(int result, string call)
    {
        if (result != 0) throw new NvrtcException($"{call}: {ErrorString(result)} ({result})");
    }
}

/// <summary>UTF-8 strings that live as long as one native call needs them.</summary>
internal sealed unsafe class NativeStrings : IDisposable
{
    private readonly List<nint> _owned = [];

    public byte* Add(string text)
    {
        nint pointer = Marshal.StringToCoTaskMemUTF8(text);
        _owned.Add(pointer);
        return (byte*)pointer;
    }

    public byte** Array(IEnumerable<string> texts)
    {
        nint[] pointers = [.. texts.Select(text => (nint)Add(text))];
        var array = (nint*)Marshal.AllocCoTaskMem((pointers.Length + 1) * sizeof(nint));
        _owned.Add((nint)array);
        for (int i = 0; i < pointers.Length; i++) array[i] = pointers[i];
        return (byte**)array;
    }

    public void Dispose() => _owned.ForEach(Marshal.FreeCoTaskMem);
}
