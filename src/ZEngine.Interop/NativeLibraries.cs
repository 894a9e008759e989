using System.Runtime.InteropServices;

namespace ZEngine.Interop;

/// <summary>
/// Where this machine keeps libcuda, NVRTC and cuBLASLt: an environment override, toolkit folders, the folders in which Python wheels put them, the
/// project's own cache, the system's loader. Nothing is looked for before it is asked for.
/// </summary>
public static class NativeLibraries
{
    /// <summary>Environment variable with the file or folder of NVRTC.</summary>
    public const string NvrtcVariable = "ZENGINE_NVRTC";

    /// <summary>Environment variable with the file or folder of cuBLASLt, or <see cref="Off"/>.</summary>
    public const string CublasLtVariable = "ZENGINE_CUBLASLT";

    /// <summary>The value of <see cref="CublasLtVariable"/> that leaves the library away.</summary>
    public const string Off = "off";

    /// <summary>Environment variable with the file of the CUDA driver library.</summary>
    public const string CudaVariable = "ZENGINE_LIBCUDA";

    /// <summary>Environment variable with the folder for what this project caches.</summary>
    public const string CacheVariable = "ZENGINE_CACHE";

    private static readonly string[] NvrtcNames = OperatingSystem.IsWindows()
        ? ["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"]
        : ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

    private static readonly string[] CublasLtNames = OperatingSystem.IsWindows()
        ? ["cublasLt64_13.dll", "cublasLt64_12.dll"]
        : ["libcublasLt.so.13", "libcublasLt.so.12"];

    /// <summary>The folder for what this project caches; it may not exist.</summary>
    public static string CacheFolder
    {
        get
        {
            if (Environment.GetEnvironmentVariable(CacheVariable) is { Length: > 0 } set) return set;
            string root = OperatingSystem.IsWindows()
                ? Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData)
                : Environment.GetEnvironmentVariable("XDG_CACHE_HOME") is { Length: > 0 } xdg ? xdg
                : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache");
            return Path.Combine(root, "zengine");
        }
    }

    /// <summary>Files that may be NVRTC, best first; all exist, except that a plain name is left to the system's loader.</summary>
    public static IEnumerable<string> NvrtcCandidates() => Candidates(NvrtcVariable, NvrtcNames, "cuda_nvrtc", "nvrtc");

    /// <summary>As <see cref="NvrtcCandidates"/>, for cuBLASLt.</summary>
    public static IEnumerable<string> CublasLtCandidates() => Candidates(CublasLtVariable, CublasLtNames, "cublas", "cublaslt");

    private static IEnumerable<string> Candidates(string variable, string[] names, string wheel, string cached)
    {
        IEnumerable<string> In(string folder) => names.Select(name => Path.Combine(folder, name)).Where(File.Exists);
        if (Environment.GetEnvironmentVariable(variable) is { Length: > 0 } set)
        {
            // An override that is wrong must not be forgiven by another library that happens to be there.
            return Directory.Exists(set) ? In(set) : [set];
        }
        return ToolkitFolders().Concat(WheelFolders("cu13", wheel)).Append(Path.Combine(CacheFolder, cached)).SelectMany(In).Concat(names);
    }

    /// <summary>Files that may be the CUDA driver library.</summary>
    public static IEnumerable<string> CudaCandidates()
    {
        if (Environment.GetEnvironmentVariable(CudaVariable) is { Length: > 0 } set) return [set];
        return OperatingSystem.IsWindows() ? ["nvcuda.dll"] : ["libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1", "libcuda.so"];
    }

    /// <summary>Loads the first library that can be loaded.</summary>
    /// <param name="candidates">Files or plain names, best first.</param>
    /// <param name="before">Is called with each before it is tried.</param>
    /// <param name="failures">Takes what the loader said of each that could not be loaded.</param>
    /// <returns>Its handle and path, or zero when there is none.</returns>
    internal static (nint Handle, string Path) LoadFirst(IEnumerable<string> candidates, Action<string>? before = null, List<string>? failures = null)
    {
        foreach (string candidate in candidates)
        {
            before?.Invoke(candidate);
            if (failures is null)
            {
                if (NativeLibrary.TryLoad(candidate, out nint handle)) return (handle, candidate);
                continue;
            }
            try
            {
                return (NativeLibrary.Load(candidate), candidate);
            }
            catch (Exception e) when (e is DllNotFoundException or BadImageFormatException)
            {
                failures.Add(LoaderError(candidate, e.Message));
            }
        }
        return (0, "");
    }

    /// <summary>Of the runtime's message the loader's line on the candidate itself; the runtime also tries other spellings of its name.</summary>
    private static string LoaderError(string candidate, string message)
    {
        string[] lines = message.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
        string line = lines.FirstOrDefault(line => line.StartsWith(candidate + ":", StringComparison.Ordinal)) ?? lines[^1];
        return line.Contains(candidate, StringComparison.Ordinal) ? line : $"{candidate}: {line}";
    }

    /// <summary>
    /// Loads the built-ins that lie beside an NVRTC. NVRTC opens them by bare name when it compiles, and finds them without any search path
    /// when they are loaded already.
    /// </summary>
    internal static void PreloadBuiltins(string nvrtc)
    {
        string? folder = Path.GetDirectoryName(nvrtc);
        if (string.IsNullOrEmpty(folder) || !Directory.Exists(folder)) return;
        string pattern = OperatingSystem.IsWindows() ? "nvrtc-builtins64_*.dll" : "libnvrtc-builtins.so.*";
        foreach (string file in Directory.EnumerateFiles(folder, pattern).Order(StringComparer.Ordinal))
            _ = NativeLibrary.TryLoad(file, out _);
    }

    private static IEnumerable<string> ToolkitFolders()
    {
        string[] inside = OperatingSystem.IsWindows() ? ["bin", Path.Combine("bin", "x64")] : ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"];
        var roots = new List<string>();
        foreach (string variable in (string[])["CUDA_PATH", "CUDA_HOME", "CUDA_ROOT", "CONDA_PREFIX"])
            if (Environment.GetEnvironmentVariable(variable) is { Length: > 0 } root) roots.Add(root);
        if (!OperatingSystem.IsWindows())
        {
            roots.Add("/usr/local/cuda");
            roots.AddRange(Folders("/usr/local", "cuda-*").OrderDescending(StringComparer.Ordinal));
            roots.Add("/opt/cuda");
        }
        foreach (string root in roots)
            foreach (string sub in inside)
                yield return Path.Combine(root, sub);
        if (OperatingSystem.IsWindows()) yield break;
        yield return "/usr/lib/x86_64-linux-gnu";
        yield return "/usr/lib/aarch64-linux-gnu";
        yield return "/usr/lib64";
    }

    /// <summary>Folders in which Python wheels of these names keep their libraries, there or not.</summary>
    internal static IEnumerable<string> WheelFolders(params string[] wheels)
    {
        var roots = new List<string>();
        foreach (string variable in (string[])["VIRTUAL_ENV", "CONDA_PREFIX"])
            if (Environment.GetEnvironmentVariable(variable) is { Length: > 0 } root) roots.Add(root);
        string home = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
        roots.AddRange([Path.Combine(home, ".local"), "/usr/local", "/usr"]);
        string leaf = OperatingSystem.IsWindows() ? "bin" : "lib";
        foreach (string root in roots)
        {
            IEnumerable<string> pythons = OperatingSystem.IsWindows()
                ? [Path.Combine(root, "Lib")]
                : Folders(Path.Combine(root, "lib"), "python3*");
            foreach (string python in pythons)
                foreach (string packages in (string[])["site-packages", "dist-packages"])
                    foreach (string wheel in wheels)
                        yield return Path.Combine(python, packages, "nvidia", wheel, leaf);
        }
    }

    private static IEnumerable<string> Folders(string root, string pattern) =>
        Directory.Exists(root) ? Directory.EnumerateDirectories(root, pattern) : [];
}
