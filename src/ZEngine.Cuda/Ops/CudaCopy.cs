using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string CopyFile = "Copy.cu";

    /// <summary>Mirrors CopyArgs in kernels/Copy.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CopyArgs
    {
        public ulong From, To;
        public long N;
        public StridedShape FromShape, ToShape;
        public int IsFromDense, IsToDense, FromType, ToType;
    }

    /// <summary>Mirrors FillArgs in kernels/Copy.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct FillArgs
    {
        public ulong To;
        public long N;
        public ulong Bits;
    }

    /// <summary>Mirrors AccumulateArgs in kernels/Copy.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct AccumulateArgs
    {
        public ulong X, Sum;
        public long N;
        public StridedShape Shape;
        public int IsDense;
    }

    internal override void Copy(Tensor source, Tensor destination)
    {
        StridedShape from = new(source, source.Count), to = new(destination, source.Count);
        bool isSame = source.DType == destination.DType;
        // Runs of elements that stand side by side on both sides move as words of up to 16 bytes.
        int elements = isSame ? WordElements(source, from, destination, to) : 1;
        int bytes = elements * source.DType.Size;
        (from, to) = (from.Widened(elements), to.Widened(elements));
        long count = source.Count / elements;
        var args = new CopyArgs
        {
            From = Pointer(source), To = Pointer(destination), N = count, FromShape = from, ToShape = to,
            IsFromDense = from.IsDense ? 1 : 0, IsToDense = to.IsDense ? 1 : 0, FromType = (int)source.DType, ToType = (int)destination.DType,
        };
        CudaKernel kernel = isSame ? Kernel(CopyFile, $"copy_words<{WordOf(bytes)}>")
            : source.DType.IsFloat && destination.DType.IsFloat ? Kernel(CopyFile, $"convert<{source.DType}, {destination.DType}>")
            : Kernel(CopyFile, $"convert_any");
        LaunchElements(kernel, count, 1, args);
    }

    internal override void Fill(Tensor tensor, float value)
    {
        ulong bits = tensor.DType switch
        {
            DType.Float32 => BitConverter.SingleToUInt32Bits(value),
            DType.BFloat16 => BitConverter.SingleToUInt32Bits((float)(BFloat16)value) >> 16,
            DType.Float16 => BitConverter.HalfToUInt16Bits((Half)value),
            DType.Int32 => (uint)int.CreateSaturating(value),
            DType.Int64 => (ulong)long.CreateSaturating(value),
            DType.UInt8 => byte.CreateSaturating(value),
            _ => (byte)sbyte.CreateSaturating(value),
        };
        LaunchElements(Kernel(CopyFile, $"fill<{WordOf(tensor.DType.Size)}>"), tensor.Count, 1, new FillArgs { To = Pointer(tensor), N = tensor.Count, Bits = bits });
    }

    internal override void Accumulate(Tensor x, Tensor sum)
    {
        var shape = new StridedShape(x, x.Count);
        LaunchElements(Kernel(CopyFile, $"accumulate<{x.DType}, {sum.DType}>"), sum.Count, 1, new AccumulateArgs
        {
            X = Pointer(x), Sum = Pointer(sum), N = sum.Count, Shape = shape, IsDense = shape.IsDense ? 1 : 0,
        });
    }

    private static int WordElements(Tensor source, in StridedShape from, Tensor destination, in StridedShape to)
    {
        int elements = WideBytes / source.DType.Size;
        while (elements > 1)
        {
            int bytes = elements * source.DType.Size;
            if (from.CanWiden(elements) && to.CanWiden(elements) && source.Address % bytes == 0 && destination.Address % bytes == 0) break;
            elements /= 2;
        }
        return elements;
    }

    private static string WordOf(int bytes) => bytes switch { 1 => "u8", 2 => "u16", 4 => "u32", 8 => "u64", _ => "Word16" };
}
