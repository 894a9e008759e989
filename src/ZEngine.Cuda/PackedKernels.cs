using System.IO.Compression;
using System.Text;
using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>PTX of every kernel instance, made when the assembly is packed, for machines that have a driver and no compiler.</summary>
/// <remarks>
/// Brotli over a digest of the kernel files and (architecture, file, expression, entry name, PTX) records. The build embeds the file that the
/// property <c>KernelPack</c> names; <c>zengine pack-kernels</c> makes it. The driver finishes PTX for any newer architecture.
/// </remarks>
internal static class PackedKernels
{
    /// <summary>The resource's name in the assembly.</summary>
    public const string ResourceName = "kernels.pack";

    /// <summary>Environment variable with a pack file that is read instead of the embedded one.</summary>
    public const string FileVariable = "ZENGINE_KERNEL_PACK";

    private const string Magic = "ZEngine kernels 2";

    private static readonly Lazy<Dictionary<(int Architecture, string Expression), ModuleImage>> Images = new(ReadOwn);

    /// <summary>The architectures that are packed: the oldest, whose PTX every other takes.</summary>
    public static readonly int[] Architectures = [80];

    /// <summary>The instances that came with the assembly, by architecture and expression.</summary>
    public static IReadOnlyDictionary<(int Architecture, string Expression), ModuleImage> Own => Images.Value;

    /// <summary>The instances in words, for <c>zengine info</c>.</summary>
    public static string Describe() => Own.Count == 0 ? "none: kernels are compiled at run time"
        : $"{Own.Count} instances as PTX for {string.Join(", ", Own.Keys.Select(key => key.Architecture).Distinct().Order().Select(architecture => $"compute_{architecture}"))}, for machines without NVRTC";

    /// <summary>An instance for a device: of the newest architecture that is not newer than it.</summary>
    public static ModuleImage? Find(IReadOnlyDictionary<(int Architecture, string Expression), ModuleImage> images, string expression, int architecture) =>
        images.Where(entry => entry.Key.Expression == expression && entry.Key.Architecture <= architecture).OrderByDescending(entry => entry.Key.Architecture).Select(entry => entry.Value).FirstOrDefault();

    /// <summary>Compiles every instance of every kernel file, or of those that are chosen, to PTX; returns how many there were.</summary>
    public static int Write(Stream stream, Nvrtc nvrtc, IReadOnlyList<int> architectures, Func<string, bool>? isChosen = null)
    {
        KernelSources sources = KernelSources.Current;
        string[] files = [.. sources.Names.Where(isChosen ?? (_ => true))];
        using var brotli = new BrotliStream(stream, CompressionLevel.Optimal, leaveOpen: true);
        using var writer = new BinaryWriter(brotli, Encoding.UTF8);
        writer.Write(Magic);
        writer.Write(sources.Digest);
        int count = architectures.Count * files.Sum(file => sources.Variants[file].Count);
        writer.Write(count);
        foreach (int architecture in architectures)
        foreach (string file in files)
        foreach (string expression in sources.Variants[file].Order(StringComparer.Ordinal))
        {
            ModuleImage image = nvrtc.Compile(sources.Request(file, $"compute_{architecture}", expression));
            writer.Write(architecture);
            writer.Write(file);
            writer.Write(expression);
            writer.Write(image.Lowered(expression));
            writer.Write(image.Ptx);
        }
        return count;
    }

    private static Dictionary<(int, string), ModuleImage> ReadOwn()
    {
        Stream? stream = Environment.GetEnvironmentVariable(FileVariable) is { Length: > 0 } file
            ? File.OpenRead(file)
            : typeof(PackedKernels).Assembly.GetManifestResourceStream(ResourceName);
        return stream is null ? [] : Read(stream);
    }

    /// <summary>All instances of a pack, whose stream is closed then.</summary>
    internal static Dictionary<(int Architecture, string Expression), ModuleImage> Read(Stream stream)
    {
        var images = new Dictionary<(int, string), ModuleImage>();
        using var reader = new BinaryReader(new BrotliStream(stream, CompressionMode.Decompress), Encoding.UTF8);
        if (reader.ReadString() != Magic) throw new InvalidDataException("The kernel pack is not of this version of the engine.");
        if (reader.ReadString() != KernelSources.Current.Digest) throw new InvalidDataException("The kernel pack was made from other kernel files; make it anew with zengine pack-kernels.");
        int count = reader.ReadInt32();
        for (int i = 0; i < count; i++)
        {
            int architecture = reader.ReadInt32();
            string name = reader.ReadString(), expression = reader.ReadString(), entry = reader.ReadString();
            images[(architecture, expression)] = new ModuleImage
            {
                Name = name, Architecture = $"compute_{architecture}", Ptx = reader.ReadString(),
                LoweredNames = new Dictionary<string, string> { [expression] = entry },
            };
        }
        return images;
    }
}
