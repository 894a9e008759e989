using System.Buffers.Binary;
using System.IO.MemoryMappedFiles;
using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace ZEngine.Training;

/// <summary>A binary token file, mapped into memory: only the pages that are read are loaded.</summary>
/// <remarks>
/// 64 bytes of header, all little-endian, then the tokens without gaps:
/// <code>
/// offset  0   8 bytes   "ZTOKENS" and a zero byte
/// offset  8   uint32    version, 1
/// offset 12   uint32    bytes per token, 2 (uint16) or 4 (uint32)
/// offset 16   uint64    number of tokens, at least 1
/// offset 24   uint32    vocabulary: every token is below it; at most 65536 for 2 bytes, 2^31 - 1 for 4
/// offset 28   uint32    zero
/// offset 32   32 bytes  SHA-256 over the tokens as 32-bit numbers, whatever their width
/// </code>
/// </remarks>
public sealed unsafe class BinaryTokens : TokenSource
{
    /// <summary>Bytes before the first token.</summary>
    public const int HeaderBytes = 64;

    private const int Version = 1, PieceTokens = 1 << 16;

    private readonly MemoryMappedFile _map;
    private readonly MemoryMappedViewAccessor _view;
    private readonly string _path;
    private byte* _tokens;
    private readonly int _width;

    private BinaryTokens(string path, FileStream stream)
    {
        _path = path;
        Span<byte> header = stackalloc byte[HeaderBytes];
        if (stream.ReadAtLeast(header, HeaderBytes, throwOnEndOfStream: false) < HeaderBytes) throw Invalid($"has {stream.Length} bytes, the header alone takes {HeaderBytes}");
        if (!header.StartsWith("ZTOKENS\0"u8)) throw Invalid("does not begin with ZTOKENS; binary token files are written with BinaryTokens.Write");
        uint version = U32(header, 8), width = U32(header, 12), vocabulary = U32(header, 24), zero = U32(header, 28);
        ulong count = BinaryPrimitives.ReadUInt64LittleEndian(header[16..]);
        if (version != Version) throw Invalid($"is of version {version}; this program reads version {Version}");
        if (width is not (2 or 4)) throw Invalid($"has {width} bytes per token, must be 2 or 4");
        if (vocabulary == 0 || vocabulary > (width == 2 ? 65536u : int.MaxValue)) throw Invalid($"has a vocabulary of {vocabulary}, which {width} bytes per token do not allow");
        if (zero != 0) throw Invalid("has a reserved field that is not zero");
        if (count == 0 || count > (long.MaxValue - HeaderBytes) / 4) throw Invalid($"says that it holds {count} tokens");
        if ((ulong)stream.Length != HeaderBytes + count * width) throw Invalid($"has {stream.Length} bytes, but {count} tokens of {width} bytes and the header take {HeaderBytes + count * width}; it was cut or not finished");
        (_width, Count, Vocabulary, Fingerprint) = ((int)width, (long)count, (int)vocabulary, Convert.ToHexStringLower(header[32..]));
        _map = MemoryMappedFile.CreateFromFile(stream, null, 0, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: true);
        _view = _map.CreateViewAccessor(0, stream.Length, MemoryMappedFileAccess.Read);
        byte* start = null;
        _view.SafeMemoryMappedViewHandle.AcquirePointer(ref start);
        _tokens = start + _view.PointerOffset + HeaderBytes;
    }

    /// <inheritdoc/>
    public override long Count { get; }

    /// <inheritdoc/>
    public override int Vocabulary { get; }

    /// <inheritdoc/>
    public override string Fingerprint { get; }

    /// <summary>Maps a file and checks its header and size.</summary>
    /// <param name="path">The file.</param>
    /// <param name="verify">Whether to read the whole file once and check every token and the hash. False trusts a file that was verified before.</param>
    /// <exception cref="InvalidDataException">The file is damaged or something else; one line that says where.</exception>
    /// <exception cref="IOException">It is missing or cannot be read.</exception>
    public static BinaryTokens Open(string path, bool verify = true)
    {
        ArgumentNullException.ThrowIfNull(path);
        using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0);
        var tokens = new BinaryTokens(path, stream);
        if (!verify) return tokens;
        try
        {
            tokens.Verify();
            return tokens;
        }
        catch
        {
            tokens.Dispose();
            throw;
        }
    }

    /// <summary>Writes a file crash-safely: under a temporary name, flushed to disk, then renamed.</summary>
    /// <param name="path">The file; one that exists is replaced when the new one is complete.</param>
    /// <param name="tokens">At least one, each from 0 to <paramref name="vocabulary"/> - 1.</param>
    /// <param name="vocabulary">Up to 65536 a token takes two bytes, above it four.</param>
    /// <returns>How many tokens were written.</returns>
    public static long Write(string path, IEnumerable<int> tokens, int vocabulary)
    {
        ArgumentNullException.ThrowIfNull(path);
        ArgumentNullException.ThrowIfNull(tokens);
        ArgumentOutOfRangeException.ThrowIfLessThan(vocabulary, 1);
        int width = vocabulary <= 65536 ? 2 : 4;
        long count = 0;
        Durable.Replace(path, stream =>
        {
            Span<byte> header = stackalloc byte[HeaderBytes];
            stream.Write(header);
            using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            foreach (int[] piece in tokens.Chunk(PieceTokens))
            {
                WritePiece(stream, piece, width, vocabulary, count);
                hash.AppendData(MemoryMarshal.AsBytes(piece.AsSpan()));
                count += piece.Length;
            }
            if (count == 0) throw new ArgumentException($"{path}: there are no tokens to write.", nameof(tokens));
            "ZTOKENS\0"u8.CopyTo(header);
            BinaryPrimitives.WriteUInt32LittleEndian(header[8..], Version);
            BinaryPrimitives.WriteUInt32LittleEndian(header[12..], (uint)width);
            BinaryPrimitives.WriteInt64LittleEndian(header[16..], count);
            BinaryPrimitives.WriteInt32LittleEndian(header[24..], vocabulary);
            hash.GetHashAndReset(header[32..]);
            stream.Position = 0;
            stream.Write(header);
        });
        return count;
    }

    /// <summary>Reads all tokens once and holds them to the vocabulary and the hash of the header.</summary>
    /// <exception cref="InvalidDataException">They differ; one line that says where.</exception>
    public void Verify()
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var piece = new int[Math.Min(PieceTokens, Count)];
        for (long at = 0; at < Count; at += piece.Length)
        {
            Span<int> tokens = piece.AsSpan(0, (int)Math.Min(piece.Length, Count - at));
            Read(at, tokens);
            for (int i = 0; i < tokens.Length; i++)
                if ((uint)tokens[i] >= (uint)Vocabulary) throw Invalid($"has the token {(uint)tokens[i]} at {at + i}, but a vocabulary of {Vocabulary}");
            hash.AppendData(MemoryMarshal.AsBytes(tokens));
        }
        string found = Convert.ToHexStringLower(hash.GetHashAndReset());
        if (found != Fingerprint) throw Invalid($"has tokens with the hash {found[..12]}…, but its header says {Fingerprint[..12]}…; write the file again");
    }

    /// <inheritdoc/>
    protected override void Copy(long start, Span<int> tokens)
    {
        ObjectDisposedException.ThrowIf(_tokens is null, this);
        if (_width == 4) new ReadOnlySpan<int>(_tokens + start * 4, tokens.Length).CopyTo(tokens);
        else
        {
            var from = new ReadOnlySpan<ushort>(_tokens + start * 2, tokens.Length);
            for (int i = 0; i < tokens.Length; i++) tokens[i] = from[i];
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing && _tokens is not null)
        {
            _tokens = null;
            _view.SafeMemoryMappedViewHandle.ReleasePointer();
            _view.Dispose();
            _map.Dispose();
        }
        base.Dispose(disposing);
    }

    private static void WritePiece(Stream stream, int[] tokens, int width, int vocabulary, long first)
    {
        for (int i = 0; i < tokens.Length; i++)
            if (tokens[i] < 0 || tokens[i] >= vocabulary) throw new ArgumentException($"Token {tokens[i]} at {first + i} is not from 0 to {vocabulary - 1}.", nameof(tokens));
        if (width == 4) stream.Write(MemoryMarshal.AsBytes(tokens.AsSpan()));
        else stream.Write(MemoryMarshal.AsBytes(Array.ConvertAll(tokens, token => (ushort)token).AsSpan()));
    }

    private static uint U32(ReadOnlySpan<byte> header, int at) => BinaryPrimitives.ReadUInt32LittleEndian(header[at..]);

    private InvalidDataException Invalid(string what) => new($"{_path}: the binary token file {what}.");
}
