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
        public int IsFromDense, IsToDense, FromType, ToType, IsWide, Unused;
    }

    /// <summary>Mirrors TransposedCopyArgs in kernels/Copy.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct TransposedCopyArgs
    {
        public ulong From, To;
        public long M, N, FromStride, ToStride;
        public StridedShape FromShape, ToShape;
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
        public int IsDense, IsWide;
    }

    internal override void Copy(Tensor source, Tensor destination)
    {
        bool isSame = source.DType == destination.DType, isBetweenFloats = source.DType.IsFloat && destination.DType.IsFloat;
        if ((isSame || isBetweenFloats) && TransposedAxes.Of(source, destination) is { } axes)
        {
            string type = isSame ? WordOf(source.DType.Size) : "";
            LaunchTiles(isSame ? Kernel(CopyFile, $"copy_transposed<{type}, {type}>") : Kernel(CopyFile, $"copy_transposed<{source.DType}, {destination.DType}>"), source, destination, axes);
            return;
        }
        StridedShape from = new(source, source.Count), to = new(destination, source.Count);
        // Runs of elements that stand side by side on both sides move as words of up to 16 bytes.
        int elements = isSame ? WordElements(source, from, destination, to) : 1;
        int bytes = elements * source.DType.Size;
        (from, to) = (from.Widened(elements), to.Widened(elements));
        long count = source.Count / elements;
        bool isWide = !isSame && AreTogether(source, destination, from.IsDense && to.IsDense);
        var args = new CopyArgs
        {
            From = Pointer(source), To = Pointer(destination), N = count, FromShape = from, ToShape = to,
            IsFromDense = from.IsDense ? 1 : 0, IsToDense = to.IsDense ? 1 : 0, FromType = (int)source.DType, ToType = (int)destination.DType, IsWide = isWide ? 1 : 0,
        };
        CudaKernel kernel = isSame ? Kernel(CopyFile, $"copy_words<{WordOf(bytes)}>")
            : isBetweenFloats ? Kernel(CopyFile, $"convert<{source.DType}, {destination.DType}>")
            : Kernel(CopyFile, $"convert_any");
        LaunchElements(kernel, count, isWide ? WideBytes / Math.Max(source.DType.Size, destination.DType.Size) : 1, args);
    }

    private static void LaunchTiles(CudaKernel kernel, Tensor source, Tensor destination, in TransposedAxes axes)
    {
        long tile = source.DType.Size < 8 ? 64 : 32;
        kernel.Launch(Blocks("Copy", axes.Others * ((axes.M + tile - 1) / tile) * ((axes.N + tile - 1) / tile)), ElementThreads, 0, new TransposedCopyArgs
        {
            From = Pointer(source), To = Pointer(destination), M = axes.M, N = axes.N, FromStride = axes.FromStride, ToStride = axes.ToStride,
            FromShape = axes.From, ToShape = axes.To,
        });
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
        for (int size = tensor.DType.Size; size < 8; size *= 2) bits = bits << 8 * size | bits & (ulong.MaxValue >> 64 - 8 * size);
        int word = WideBytes;
        while (tensor.Address % word != 0 || tensor.Count * tensor.DType.Size % word != 0) word /= 2;
        long count = tensor.Count * tensor.DType.Size / word;
        LaunchElements(Kernel(CopyFile, $"fill<{WordOf(word)}>"), count, 1, new FillArgs { To = Pointer(tensor), N = count, Bits = bits });
    }

    internal override void Accumulate(Tensor x, Tensor sum)
    {
        if (TransposedAxes.Of(x, sum) is { } axes)
        {
            LaunchTiles(Kernel(CopyFile, $"accumulate_transposed<{x.DType}, {sum.DType}>"), x, sum, axes);
            return;
        }
        var shape = new StridedShape(x, x.Count);
        bool isWide = AreTogether(x, sum, shape.IsDense);
        LaunchElements(Kernel(CopyFile, $"accumulate<{x.DType}, {sum.DType}>"), sum.Count, isWide ? WideBytes / Math.Max(x.DType.Size, sum.DType.Size) : 1, new AccumulateArgs
        {
            X = Pointer(x), Sum = Pointer(sum), N = sum.Count, Shape = shape, IsDense = shape.IsDense ? 1 : 0, IsWide = isWide ? 1 : 0,
        });
    }

    /// <summary>Whether two dense tensors can be read side by side in accesses of 16 bytes of the wider type.</summary>
    private static bool AreTogether(Tensor a, Tensor b, bool areDense)
    {
        int elements = WideBytes / Math.Max(a.DType.Size, b.DType.Size);
        return areDense && a.Count % elements == 0 && IsAligned(a, elements) && IsAligned(b, elements);
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
