using System.Diagnostics.CodeAnalysis;

namespace ZEngine.Models;

/// <summary>The weights of a checkpoint folder: one <c>model.safetensors</c>, or shards and their index, as one set of names.</summary>
/// <remarks>The files are mapped, not read. Entries and addresses are valid until <see cref="Dispose"/>.</remarks>
public sealed class WeightFiles : IDisposable
{
    /// <summary>The file of a checkpoint that is not sharded.</summary>
    public const string SingleFileName = "model.safetensors";

    /// <summary>The file that names the shard of every tensor.</summary>
    public const string IndexFileName = WeightIndex.FileName;

    private readonly List<SafetensorsFile> _files = [];
    private readonly OrderedDictionary<string, (SafetensorsFile File, SafetensorsEntry Entry)> _tensors = new(StringComparer.Ordinal);

    private WeightFiles(string folder, bool isWritable)
    {
        Folder = folder;
        try
        {
            WeightIndex? index = FindIndex(folder);
            IReadOnlyList<string> names = index?.Shards ?? [SingleFileName];
            foreach (string name in names) Add(SafetensorsFile.Open(Path.Combine(folder, name), isWritable), name, index);
            if (index is not null) RequireAllFound(index);
            Layout = new WeightLayout([.. _files.Zip(names, LayoutOf)], index);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Maps the weights of a folder and checks every header, and the index against them.</summary>
    /// <param name="folder">Holds <c>model.safetensors</c>, or <c>model.safetensors.index.json</c> and its shards.</param>
    /// <param name="isWritable">As in <see cref="SafetensorsFile.Open"/>.</param>
    /// <exception cref="InvalidDataException">A file is invalid, or index and shards disagree; one line that names the file.</exception>
    /// <exception cref="IOException">A file is missing or cannot be read or mapped.</exception>
    public static WeightFiles Open(string folder, bool isWritable = true)
    {
        ArgumentNullException.ThrowIfNull(folder);
        return new WeightFiles(folder, isWritable);
    }

    /// <summary>The folder given to <see cref="Open"/>.</summary>
    public string Folder { get; }

    /// <summary>What <see cref="Save(string, IReadOnlyCollection{SafetensorsTensor}, WeightLayout)"/> needs to write the same files again.</summary>
    public WeightLayout Layout { get; }

    /// <summary>The mapped files, in the order of their names.</summary>
    public IReadOnlyList<SafetensorsFile> Files => _files;

    /// <summary>Every tensor name: file after file, in the order of the data.</summary>
    public IReadOnlyList<string> Names => _tensors.Keys;

    /// <summary>Finds a tensor and the file that holds it.</summary>
    public bool TryGet(string name, [NotNullWhen(true)] out SafetensorsFile? file, [NotNullWhen(true)] out SafetensorsEntry? entry)
    {
        bool isFound = _tensors.TryGetValue(name, out (SafetensorsFile File, SafetensorsEntry Entry) place);
        (file, entry) = place;
        return isFound;
    }

    /// <summary>The file that holds a tensor, and its entry there.</summary>
    /// <exception cref="InvalidDataException">No file of the folder holds it.</exception>
    public (SafetensorsFile File, SafetensorsEntry Entry) Get(string name) =>
        _tensors.TryGetValue(name, out (SafetensorsFile File, SafetensorsEntry Entry) place)
            ? place
            : throw WeightErrors.Invalid(Folder, $"no tensor {WeightErrors.Quote(name)} in {(Files.Count == 1 ? Path.GetFileName(Files[0].Path) : $"{Files.Count} shards")}.");

    /// <summary>Unmaps all files.</summary>
    public void Dispose()
    {
        foreach (SafetensorsFile file in _files) file.Dispose();
    }

    /// <summary>Writes a checkpoint as it was laid out when read: same files, same tensors in each, same metadata.</summary>
    /// <remarks>
    /// A file whose tensors kept their element types and shapes gets the same header, and so the same bytes if the data is the same.
    /// A file in which some changed gets a new header in the reference's form, and the index its new total size.
    /// </remarks>
    /// <param name="folder">Created where it is missing.</param>
    /// <param name="tensors">Exactly the names of the layout, in any order.</param>
    /// <param name="layout">From <see cref="Layout"/>.</param>
    /// <exception cref="ArgumentException">The names are not those of the layout, or one is given twice.</exception>
    public static void Save(string folder, IReadOnlyCollection<SafetensorsTensor> tensors, WeightLayout layout)
    {
        ArgumentNullException.ThrowIfNull(layout);
        WeightSaving.Save(folder, WeightSaving.PlanAs(layout, tensors));
    }

    /// <summary>Writes a new checkpoint: one file when all fits, else shards <c>model-00001-of-0000N.safetensors</c> and an index.</summary>
    /// <param name="folder">Created where it is missing.</param>
    /// <param name="tensors">Shards are filled in this order; a tensor larger than a shard gets one for itself.</param>
    /// <param name="maxShardBytes">The most tensor bytes a shard takes.</param>
    /// <param name="metadata">The <c>__metadata__</c> of every file; null writes <c>{"format": "pt"}</c>, without which transformers refuses a file.</param>
    /// <exception cref="ArgumentException">Two tensors have one name.</exception>
    public static void Save(
        string folder,
        IReadOnlyCollection<SafetensorsTensor> tensors,
        long maxShardBytes = 5_000_000_000,
        IReadOnlyCollection<KeyValuePair<string, string>>? metadata = null)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(maxShardBytes);
        WeightSaving.Save(folder, WeightSaving.PlanNew(tensors, maxShardBytes, metadata ?? [new("format", "pt")]));
    }

    private static WeightIndex? FindIndex(string folder)
    {
        string path = Path.Combine(folder, IndexFileName);
        bool hasSingle = File.Exists(Path.Combine(folder, SingleFileName));
        if (!File.Exists(path))
        {
            if (hasSingle) return null;
            if (!Directory.Exists(folder)) throw new DirectoryNotFoundException($"{folder}: no such folder.");
            throw new FileNotFoundException($"{folder}: neither {SingleFileName} nor {IndexFileName} is there.", path);
        }
        WeightIndex index = WeightIndex.Parse(JsonFile.ReadBytes(path), path);
        if (hasSingle && !index.Shards.Contains(SingleFileName))
            throw WeightErrors.Invalid(folder, $"holds {SingleFileName} and an index of other files; remove the one that is not meant.");
        return index;
    }

    private static WeightShard LayoutOf(SafetensorsFile file, string name) =>
        new(name, file.HeaderJson.ToArray(), file.HasMetadata ? [.. file.Metadata] : null, file.Entries);

    private void Add(SafetensorsFile file, string name, WeightIndex? index)
    {
        _files.Add(file);
        foreach (SafetensorsEntry entry in file.Entries)
        {
            if (_tensors.TryGetValue(entry.Name, out (SafetensorsFile File, SafetensorsEntry Entry) other))
                throw WeightErrors.Tensor(file.Path, entry.Name, $"stands in {Path.GetFileName(other.File.Path)} too.");
            if (index is not null)
            {
                if (!index.WeightMap.TryGetValue(entry.Name, out string? mapped)) throw WeightErrors.Tensor(file.Path, entry.Name, $"is not in {IndexFileName}.");
                if (mapped != name) throw WeightErrors.Tensor(file.Path, entry.Name, $"should be in {mapped}, says {IndexFileName}.");
            }
            _tensors.Add(entry.Name, (file, entry));
        }
    }

    private void RequireAllFound(WeightIndex index)
    {
        foreach ((string name, string shard) in index.WeightMap)
        {
            if (!_tensors.ContainsKey(name)) throw WeightErrors.Tensor(Path.Combine(Folder, IndexFileName), name, $"is not in {shard}.");
        }
    }
}
