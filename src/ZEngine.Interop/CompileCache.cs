using System.Security.Cryptography;
using System.Text;

namespace ZEngine.Interop;

/// <summary>
/// Compiled modules on disk, keyed by all that can change them: source, included texts, options, names, architecture and NVRTC's version.
/// Entries are written to a file of their own and then renamed, so processes may share the folder; an entry that does not match its own
/// checksum is a miss; a folder that cannot be written only costs time.
/// </summary>
/// <param name="folder">Where entries lie; null for the user's cache folder.</param>
public sealed class CompileCache(string? folder = null)
{
    private const string Magic = "ZEngine module 1";
    private int _hits, _misses;

    /// <summary>Where entries lie.</summary>
    public string Folder { get; } = folder ?? Path.Combine(NativeLibraries.CacheFolder, "modules");

    /// <summary>Requests answered from disk.</summary>
    public int Hits => _hits;

    /// <summary>Requests that had to be compiled.</summary>
    public int Misses => _misses;

    /// <summary>The module from disk, or compiled and then kept.</summary>
    public ModuleImage Compile(Nvrtc nvrtc, CompileRequest request)
    {
        string path = PathOf(nvrtc.Version, request);
        if (Read(path) is { } image)
        {
            Interlocked.Increment(ref _hits);
            return image;
        }
        Interlocked.Increment(ref _misses);
        image = nvrtc.Compile(request);
        Write(path, image);
        return image;
    }

    /// <summary>The file an entry has or would have.</summary>
    public string PathOf(Version version, CompileRequest request)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        void Add(string text)
        {
            byte[] bytes = Encoding.UTF8.GetBytes(text);
            hash.AppendData(BitConverter.GetBytes(bytes.Length));
            hash.AppendData(bytes);
        }
        Add(Magic);
        Add(version.ToString());
        Add(request.Name);
        Add(request.Source);
        foreach ((string name, string text) in request.Includes.OrderBy(pair => pair.Key, StringComparer.Ordinal))
        {
            Add(name);
            Add(text);
        }
        Add("options");
        foreach (string option in Nvrtc.OptionsOf(request)) Add(option);
        Add("names");
        foreach (string expression in request.NameExpressions) Add(expression);
        return Path.Combine(Folder, Convert.ToHexStringLower(hash.GetHashAndReset()) + ".module");
    }

    private static ModuleImage? Read(string path)
    {
        try
        {
            byte[] file = File.ReadAllBytes(path);
            if (file.Length < 32 || !SHA256.HashData(file.AsSpan(32)).AsSpan().SequenceEqual(file.AsSpan(0, 32))) return null;
            using var reader = new BinaryReader(new MemoryStream(file, 32, file.Length - 32));
            if (reader.ReadString() != Magic) return null;
            return new ModuleImage
            {
                Name = reader.ReadString(),
                Architecture = reader.ReadString(),
                Ptx = reader.ReadString(),
                Log = reader.ReadString(),
                Cubin = reader.ReadBytes(reader.ReadInt32()),
                LoweredNames = ReadMap(reader, r => r.ReadString()),
                Resources = ReadMap(reader, r => new KernelResources(
                    r.ReadInt32(), r.ReadInt32(), r.ReadInt32(), r.ReadInt32(), r.ReadInt32(), r.ReadInt32())),
            };
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private void Write(string path, ModuleImage image)
    {
        var payload = new MemoryStream();
        using (var writer = new BinaryWriter(payload, Encoding.UTF8, leaveOpen: true))
        {
            writer.Write(Magic);
            writer.Write(image.Name);
            writer.Write(image.Architecture);
            writer.Write(image.Ptx);
            writer.Write(image.Log);
            writer.Write(image.Cubin.Length);
            writer.Write(image.Cubin);
            WriteMap(writer, image.LoweredNames, (w, text) => w.Write(text));
            WriteMap(writer, image.Resources, (w, r) =>
            {
                foreach (int value in (int[])[r.Registers, r.StackBytes, r.SpillStoreBytes, r.SpillLoadBytes, r.SharedBytes, r.Barriers])
                    w.Write(value);
            });
        }
        byte[] bytes = payload.ToArray();
        string temporary = $"{path}.{Environment.ProcessId}.{Guid.NewGuid():N}";
        try
        {
            Directory.CreateDirectory(Folder);
            using (FileStream file = File.Create(temporary))
            {
                file.Write(SHA256.HashData(bytes));
                file.Write(bytes);
            }
            File.Move(temporary, path, overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Another process may hold the entry, or the folder may be read-only: the module in hand is good either way.
        }
    }

    private static Dictionary<string, T> ReadMap<T>(BinaryReader reader, Func<BinaryReader, T> value)
    {
        int count = reader.ReadInt32();
        var map = new Dictionary<string, T>(count);
        for (int i = 0; i < count; i++)
        {
            string key = reader.ReadString();
            map[key] = value(reader);
        }
        return map;
    }

    private static void WriteMap<T>(BinaryWriter writer, IReadOnlyDictionary<string, T> map, Action<BinaryWriter, T> value)
    {
        writer.Write(map.Count);
        foreach ((string key, T entry) in map)
        {
            writer.Write(key);
            value(writer, entry);
        }
    }
}
