using System.Numerics;
using System.Runtime.InteropServices;

namespace ZEngine.Models;

/// <summary>Takes in the bytes of a float tensor and notes whether an exponent is all ones: NaN or an infinity.</summary>
internal sealed class FiniteCheck(DType dtype) : Stream
{
    public bool AllFinite { get; private set; } = true;

    public override bool CanRead => false;
    public override bool CanSeek => false;
    public override bool CanWrite => true;
    public override long Length => throw new NotSupportedException();
    public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

    /// <remarks>The pieces of a tensor hold whole elements.</remarks>
    public override void Write(ReadOnlySpan<byte> buffer) => AllFinite = AllFinite && (dtype switch
    {
        DType.Float32 => IsFinite(MemoryMarshal.Cast<byte, uint>(buffer), 0x7F80_0000u),
        DType.BFloat16 => IsFinite(MemoryMarshal.Cast<byte, ushort>(buffer), (ushort)0x7F80),
        DType.Float16 => IsFinite(MemoryMarshal.Cast<byte, ushort>(buffer), (ushort)0x7C00),
        _ => throw new NotSupportedException($"FiniteCheck: {dtype} has no infinities."),
    });

    public override void Write(byte[] buffer, int offset, int count) => Write(buffer.AsSpan(offset, count));
    public override void Flush() { }
    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();
    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();
    public override void SetLength(long value) => throw new NotSupportedException();

    private static bool IsFinite<T>(ReadOnlySpan<T> bits, T exponent) where T : unmanaged, IBinaryInteger<T>
    {
        var mask = new Vector<T>(exponent);
        for (; bits.Length >= Vector<T>.Count; bits = bits[Vector<T>.Count..])
            if (Vector.EqualsAny(new Vector<T>(bits) & mask, mask)) return false;
        foreach (T element in bits)
            if ((element & exponent) == exponent) return false;
        return true;
    }
}
