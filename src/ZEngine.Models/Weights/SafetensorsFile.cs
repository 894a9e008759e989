using System.IO.MemoryMappedFiles;

namespace ZEngine.Models;

/// <summary>A safetensors file, mapped into memory: opening reads the header, and data pages are read when touched.</summary>
/// <remarks>
/// The mapping is copy-on-write: a write through <see cref="AddressOf"/> changes this process's view and never the file.
/// All members may be called from several threads; none may be called, and no address used, during or after <see cref="Dispose"/>.
/// Whoever keeps an address keeps this object too: collected as garbage, it unmaps the file.
/// A file that another process shortens while it is mapped faults on access; on Windows it cannot be replaced until disposed.
/// </remarks>
public sealed class SafetensorsFile : IDisposable
{
    private readonly MemoryMappedFile _map;
    private readonly MemoryMappedViewAccessor _view;
    private readonly SafetensorsHeader _header;
    private readonly Dictionary<string, SafetensorsEntry> _byName;
    private readonly nint _start;
    private readonly int _headerBytes;
    private bool _isDisposed;

    private unsafe SafetensorsFile(string path, FileStream stream, bool isWritable)
    {
        Path = path;
        long fileBytes = stream.Length;
        Span<byte> prefix = stackalloc byte[SafetensorsHeader.PrefixBytes];
        int got = stream.ReadAtLeast(prefix, prefix.Length, throwOnEndOfStream: false);
        _headerBytes = SafetensorsHeader.ReadLength(prefix[..got], fileBytes, path);

        MemoryMappedFileAccess access = isWritable ? MemoryMappedFileAccess.CopyOnWrite : MemoryMappedFileAccess.Read;
        _map = MemoryMappedFile.CreateFromFile(stream, null, 0, access, HandleInheritability.None, leaveOpen: true);
        try
        {
            _view = _map.CreateViewAccessor(0, fileBytes, access);
            byte* start = null;
            _view.SafeMemoryMappedViewHandle.AcquirePointer(ref start);
            _start = (nint)start + (nint)_view.PointerOffset;
            DataBytes = fileBytes - SafetensorsHeader.PrefixBytes - _headerBytes;
            _header = SafetensorsHeader.Parse(HeaderJson, DataBytes, path);
        }
        catch (Exception e)
        {
            if (_start != 0) _view!.SafeMemoryMappedViewHandle.ReleasePointer();
            _view?.Dispose();
            _map.Dispose();
            // A private writable view counts as memory that the system has to promise; a view to read from does not.
            if (e is IOException && isWritable)
                throw new IOException($"{path}: {fileBytes} bytes could not be mapped for writing ({e.Message}); open the file with isWritable: false.", e);
            throw;
        }
        _byName = _header.Entries.ToDictionary(entry => entry.Name, StringComparer.Ordinal);
        IsWritable = isWritable;
    }

    /// <summary>Maps the file and checks its header completely; the data is not read.</summary>
    /// <param name="path">The file; error messages name it as given here.</param>
    /// <param name="isWritable">Whether addresses may be written through. A file larger than the machine's memory may be refused then.</param>
    /// <exception cref="InvalidDataException">The file is no valid safetensors file; one line that names file, tensor and place.</exception>
    /// <exception cref="IOException">The file is missing, cannot be read, or cannot be mapped.</exception>
    public static SafetensorsFile Open(string path, bool isWritable = true)
    {
        ArgumentNullException.ThrowIfNull(path);
        using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete, bufferSize: 0);
        return new SafetensorsFile(path, stream, isWritable);
    }

    /// <summary>The path given to <see cref="Open"/>.</summary>
    public string Path { get; }

    /// <summary>Whether addresses may be written through, privately to this process.</summary>
    public bool IsWritable { get; }

    /// <summary>The <c>__metadata__</c> of the header in file order; empty when there is none.</summary>
    public IReadOnlyDictionary<string, string> Metadata => _header.Metadata;

    /// <summary>Every tensor, in the order in which their bytes stand in the file.</summary>
    public IReadOnlyList<SafetensorsEntry> Entries => _header.Entries;

    /// <summary>Bytes behind the header; the tensors cover them without hole or overlap.</summary>
    public long DataBytes { get; }

    internal bool HasMetadata => _header.HasMetadata;

    /// <summary>The JSON of the header with its padding, in mapped memory.</summary>
    internal unsafe ReadOnlySpan<byte> HeaderJson => new((byte*)_start + SafetensorsHeader.PrefixBytes, _headerBytes);

    /// <summary>Looks a tensor up by its name.</summary>
    public bool TryGet(string name, [System.Diagnostics.CodeAnalysis.NotNullWhen(true)] out SafetensorsEntry? entry) => _byName.TryGetValue(name, out entry);

    /// <summary>Where the tensor's first byte is mapped; valid until <see cref="Dispose"/>.</summary>
    /// <remarks>
    /// Files of the reference writer place every tensor at a multiple of its element size; the format does not promise it.
    /// </remarks>
    /// <exception cref="InvalidDataException">The element type is one that no tensor has.</exception>
    public nint AddressOf(SafetensorsEntry entry)
    {
        nint address = RawAddressOf(entry);
        if (entry.DType is null)
            throw WeightErrors.Tensor(Path, entry.Name, $"is of dtype {entry.DTypeName}, which is not read; read are F32, BF16, F16, I32, I64, U8 and I8.");
        return address;
    }

    /// <summary>The tensor's bytes; valid until <see cref="Dispose"/>.</summary>
    /// <exception cref="InvalidDataException">The element type is one that no tensor has, or the tensor exceeds a span's 2^31 - 1 bytes.</exception>
    public unsafe ReadOnlySpan<byte> Bytes(SafetensorsEntry entry)
    {
        nint address = AddressOf(entry);
        if (entry.ByteCount > int.MaxValue)
            throw WeightErrors.Tensor(Path, entry.Name, $"has {entry.ByteCount} bytes, more than a span holds ({int.MaxValue}); use its address.");
        return new ReadOnlySpan<byte>((void*)address, (int)entry.ByteCount);
    }

    /// <summary>The address of a tensor of any element type, for copying it unread.</summary>
    internal nint RawAddressOf(SafetensorsEntry entry)
    {
        ArgumentNullException.ThrowIfNull(entry);
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        if (!_byName.TryGetValue(entry.Name, out SafetensorsEntry? own) || own != entry)
            throw new ArgumentException($"{Path}: tensor {WeightErrors.Quote(entry.Name)} is an entry of another file.", nameof(entry));
        return _start + SafetensorsHeader.PrefixBytes + _headerBytes + (nint)entry.ByteOffset;
    }

    /// <summary>Unmaps the file; every address into it becomes invalid.</summary>
    public void Dispose()
    {
        if (_isDisposed) return;
        _isDisposed = true;
        _view.SafeMemoryMappedViewHandle.ReleasePointer();
        _view.Dispose();
        _map.Dispose();
    }
}
