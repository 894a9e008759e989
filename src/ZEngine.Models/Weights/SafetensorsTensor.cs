namespace ZEngine.Models;

/// <summary>A tensor to be written: name, element type, shape, and where its bytes come from when their turn comes.</summary>
public sealed class SafetensorsTensor
{
    private readonly Action<Stream> _write;

    private SafetensorsTensor(string name, string dtypeName, long[] shape, Action<Stream> write)
    {
        ArgumentNullException.ThrowIfNull(name);
        if (name == "__metadata__") throw new ArgumentException("A tensor cannot be named '__metadata__'.", nameof(name));
        if (!SafetensorsDTypes.TryByteCount(dtypeName, shape, out long bytes))
            throw new ArgumentException($"Tensor {WeightErrors.Quote(name)}: shape [{string.Join(", ", shape)}] of {dtypeName} takes no whole number of bytes below 2^63.", nameof(shape));
        Name = name;
        DTypeName = dtypeName;
        Shape = shape;
        ByteCount = bytes;
        _write = write;
    }

    /// <summary>The tensor's name.</summary>
    public string Name { get; }

    /// <summary>The element type as files spell it, such as <c>BF16</c>.</summary>
    public string DTypeName { get; }

    /// <summary>The sizes of the axes. Not to be written to.</summary>
    public long[] Shape { get; }

    /// <summary>Bytes of all elements.</summary>
    public long ByteCount { get; }

    /// <summary>A tensor whose little-endian elements <paramref name="write"/> puts into a stream, exactly as many bytes as the shape takes.</summary>
    /// <param name="name">The tensor's name.</param>
    /// <param name="dtype">The element type.</param>
    /// <param name="shape">The sizes of the axes.</param>
    /// <param name="write">Called once per file written; too few or too many bytes are an error.</param>
    public static SafetensorsTensor FromStream(string name, DType dtype, ReadOnlySpan<long> shape, Action<Stream> write)
    {
        ArgumentNullException.ThrowIfNull(write);
        return new SafetensorsTensor(name, SafetensorsDTypes.Name(dtype), shape.ToArray(), write);
    }

    /// <summary>A tensor in memory, which must stay as it is until it has been written.</summary>
    /// <param name="name">The tensor's name.</param>
    /// <param name="dtype">The element type.</param>
    /// <param name="shape">The sizes of the axes.</param>
    /// <param name="address">The first element, contiguous in row-major order.</param>
    /// <param name="byteCount">The bytes there; must be what the shape takes.</param>
    public static SafetensorsTensor FromMemory(string name, DType dtype, ReadOnlySpan<long> shape, nint address, long byteCount)
    {
        var tensor = new SafetensorsTensor(name, SafetensorsDTypes.Name(dtype), shape.ToArray(), stream => Copy(address, byteCount, stream));
        if (tensor.ByteCount != byteCount)
            throw new ArgumentException($"Tensor {WeightErrors.Quote(name)}: {byteCount} bytes given, the shape takes {tensor.ByteCount}.", nameof(byteCount));
        return tensor;
    }

    /// <summary>A tensor of an open file, of any element type; the file must stay open until the tensor has been written.</summary>
    public static SafetensorsTensor FromFile(SafetensorsFile file, SafetensorsEntry entry)
    {
        ArgumentNullException.ThrowIfNull(file);
        _ = file.RawAddressOf(entry);
        return new SafetensorsTensor(entry.Name, entry.DTypeName, [.. entry.Shape], stream => Copy(file.RawAddressOf(entry), entry.ByteCount, stream));
    }

    /// <summary>The same tensor with its bytes elsewhere in memory.</summary>
    internal static SafetensorsTensor FromMemory(SafetensorsTensor tensor, nint address) =>
        new(tensor.Name, tensor.DTypeName, tensor.Shape, stream => Copy(address, tensor.ByteCount, stream));

    /// <summary>A copy of a short tensor of an open file, of any element type, which outlives the file.</summary>
    internal static unsafe SafetensorsTensor CopyOf(SafetensorsFile file, SafetensorsEntry entry)
    {
        byte[] bytes = new ReadOnlySpan<byte>((void*)file.RawAddressOf(entry), checked((int)entry.ByteCount)).ToArray();
        return new SafetensorsTensor(entry.Name, entry.DTypeName, [.. entry.Shape], stream => stream.Write(bytes));
    }

    /// <summary>Writes the bytes and checks their number.</summary>
    internal void WriteTo(Stream stream)
    {
        using var counted = new CountedStream(stream, this);
        _write(counted);
        counted.RequireComplete();
    }

    private static unsafe void Copy(nint address, long byteCount, Stream stream)
    {
        const int Piece = 16 << 20;
        for (long done = 0; done < byteCount; done += Piece)
            stream.Write(new ReadOnlySpan<byte>((byte*)address + done, (int)Math.Min(Piece, byteCount - done)));
    }

    /// <summary>Passes writes on and holds them to the tensor's byte count.</summary>
    private sealed class CountedStream(Stream target, SafetensorsTensor tensor) : Stream
    {
        private long _written;

        public override bool CanRead => false;
        public override bool CanSeek => false;
        public override bool CanWrite => true;
        public override long Length => _written;
        public override long Position { get => _written; set => throw new NotSupportedException(); }

        public void RequireComplete()
        {
            if (_written != tensor.ByteCount)
                throw new InvalidOperationException($"Tensor {WeightErrors.Quote(tensor.Name)}: {_written} bytes were written, the shape takes {tensor.ByteCount}.");
        }

        public override void Write(ReadOnlySpan<byte> buffer)
        {
            if (buffer.Length > tensor.ByteCount - _written)
                throw new InvalidOperationException($"Tensor {WeightErrors.Quote(tensor.Name)}: more bytes are written than the {tensor.ByteCount} its shape takes.");
            target.Write(buffer);
            _written += buffer.Length;
        }

        public override void Write(byte[] buffer, int offset, int count) => Write(buffer.AsSpan(offset, count));
        public override void WriteByte(byte value) => Write([value]);
        public override void Flush() => target.Flush();
        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();
        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();
        public override void SetLength(long value) => throw new NotSupportedException();
    }
}
