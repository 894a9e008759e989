using System.Runtime.CompilerServices;

namespace ZEngine.Cuda;

/// <summary>A C++ name expression such as <c>rms_norm_forward&lt;bf16, 8&gt;</c>, written as an interpolated string without an allocation.</summary>
[InterpolatedStringHandler]
#pragma warning disable CA1822 // a handler's members are called on the instance
internal ref struct KernelExpression
{
    private const int Capacity = 160;
    private Buffer _chars;
    private int _length;

    public KernelExpression(int literalLength, int formattedCount) { }

    [System.Diagnostics.CodeAnalysis.UnscopedRef]
    public ReadOnlySpan<char> Text => ((ReadOnlySpan<char>)_chars)[.._length];

    public void AppendLiteral(string text)
    {
        text.CopyTo(((Span<char>)_chars)[_length..]);
        _length += text.Length;
    }

    public void AppendFormatted(string text) => AppendLiteral(text);

    public void AppendFormatted(bool flag) => AppendLiteral(flag ? "true" : "false");

    public void AppendFormatted(DType dtype) => AppendLiteral(NameOf(dtype));

    public void AppendFormatted(int number)
    {
        if (!number.TryFormat(((Span<char>)_chars)[_length..], out int written, default, System.Globalization.CultureInfo.InvariantCulture)) throw new FormatException("a kernel's name is too long");
        _length += written;
    }

    /// <summary>The scalar type of kernels/common/Types.cuh.</summary>
    public static string NameOf(DType dtype) => dtype switch
    {
        DType.Float32 => "f32",
        DType.BFloat16 => "bf16",
        DType.Float16 => "f16",
        DType.Int32 => "i32",
        DType.Int64 => "i64",
        DType.UInt8 => "u8",
        DType.Int8 => "i8",
        _ => throw new ArgumentOutOfRangeException(nameof(dtype), dtype, "not an element type"),
    };

    [InlineArray(Capacity)]
    private struct Buffer
    {
        private char _char;
    }
}
