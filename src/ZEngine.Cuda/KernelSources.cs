using System.Reflection;
using System.Security.Cryptography;
using System.Text;
using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>The kernel files inside this assembly, or those of a folder for edit and rerun.</summary>
internal sealed class KernelSources
{
    /// <summary>Environment variable with a folder that is read instead of the embedded files.</summary>
    public const string FolderVariable = "ZENGINE_KERNELS";

    private const string Prefix = "kernels/";
    private readonly Dictionary<string, string> _files;

    private KernelSources(Dictionary<string, string> files)
    {
        _files = files;
        Includes = files.Where(file => file.Key.EndsWith(".cuh", StringComparison.Ordinal)).ToDictionary();
        foreach (string name in Names) Variants[name] = [.. KernelVariants.In(files[name])];
    }

    public static KernelSources Current { get; } = Read();

    /// <summary>The names of the <c>.cu</c> files.</summary>
    public IEnumerable<string> Names => _files.Keys.Where(name => name.EndsWith(".cu", StringComparison.Ordinal)).Order(StringComparer.Ordinal);

    /// <summary>Headers by the path under which they are included.</summary>
    public IReadOnlyDictionary<string, string> Includes { get; }

    /// <summary>The instances that each file's header lists: all that a launch may ask for.</summary>
    public Dictionary<string, HashSet<string>> Variants { get; } = [];

    public string this[string name] => _files[name];

    /// <summary>Of the names and the text of all files.</summary>
    public string Digest
    {
        get
        {
            using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            foreach ((string name, string text) in _files.OrderBy(file => file.Key, StringComparer.Ordinal)) hash.AppendData(Encoding.UTF8.GetBytes($"{name}\0{text}\0"));
            return Convert.ToHexStringLower(hash.GetHashAndReset());
        }
    }

    public CompileRequest Request(string file, string architecture, params IReadOnlyList<string> expressions) =>
        new() { Name = file, Source = _files[file], Includes = Includes, NameExpressions = expressions, Architecture = architecture };

    private static KernelSources Read()
    {
        if (Environment.GetEnvironmentVariable(FolderVariable) is { Length: > 0 } folder)
        {
            if (!Directory.Exists(folder)) throw new DirectoryNotFoundException($"{FolderVariable} names {folder}, which is no folder.");
            return new KernelSources(Directory.EnumerateFiles(folder, "*.cu*", SearchOption.AllDirectories)
                .ToDictionary(path => Path.GetRelativePath(folder, path).Replace('\\', '/'), File.ReadAllText));
        }
        Assembly assembly = typeof(KernelSources).Assembly;
        return new KernelSources(assembly.GetManifestResourceNames().Where(name => name.StartsWith(Prefix, StringComparison.Ordinal)).ToDictionary(
            name => name[Prefix.Length..],
            name =>
            {
                using var reader = new StreamReader(assembly.GetManifestResourceStream(name)!);
                return reader.ReadToEnd();
            }));
    }
}
