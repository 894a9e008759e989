using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

/// <summary>What a CUDA device computes: each op's launch stands in its own file, and its kernel in the file of the same name.</summary>
internal sealed partial class CudaBackend(CudaDevice device) : Backend
{
    /// <summary>Bytes of the widest memory access of a thread.</summary>
    private const int WideBytes = 16;

    /// <summary>The largest grid in x.</summary>
    private const long MaxGrid = int.MaxValue;

    internal override bool AcceptsActivation(DType dtype) => dtype.IsFloat;

    /// <summary>Rows begin at multiples of 16 bytes.</summary>
    internal override Tensor EmptyRows(ReadOnlySpan<long> shape, DType dtype, Device on)
    {
        int elements = WideElements(dtype);
        if (shape[^1] % elements == 0) return Tensor.Empty(shape, dtype, on);
        using TensorScope scope = TensorScope.Enter();
        long[] padded = shape.ToArray();
        padded[^1] = (padded[^1] + elements - 1) / elements * elements;
        return scope.Keep(Tensor.Empty(padded, dtype, on).Slice(-1, 0, shape[^1]));
    }

    /// <summary>A kernel instance of a file, such as <c>Kernel("RmsNorm.cu", $"rms_norm_forward&lt;{x.DType}, {wide}&gt;")</c>.</summary>
    private CudaKernel Kernel(string file, scoped KernelExpression expression) => device.Kernels.Get(file, expression.Text);

    private static ulong Pointer(Tensor? tensor) => tensor is null ? 0 : (ulong)tensor.Address;

    /// <summary>A table on the device that a kernel reads. Dispose it right after the launch: memory comes back in stream order.</summary>
    private Tensor Upload<T>(ReadOnlySpan<T> table) where T : unmanaged
    {
        ReadOnlySpan<byte> bytes = MemoryMarshal.AsBytes(table);
        Tensor copy = Tensor.Empty([bytes.Length], DType.UInt8, device);
        device.UploadTable(bytes, copy.Address);
        return copy;
    }

    /// <summary>Blocks for a number of items; an error where the grid cannot hold them.</summary>
    private static int Blocks(string op, long items, long perBlock = 1)
    {
        long blocks = (items + perBlock - 1) / perBlock;
        return blocks <= MaxGrid ? (int)blocks : throw new NotSupportedException($"{op}: {items:N0} items need {blocks:N0} blocks, a grid has at most {MaxGrid:N0}.");
    }

    /// <summary>Blocks for a loop in which each thread goes on by the size of the grid: enough to fill the device, no more than there is work.</summary>
    private int PersistentBlocks(long items, long perBlock, int blocksPerMultiprocessor = 4) =>
        (int)Math.Clamp((items + perBlock - 1) / perBlock, items == 0 ? 0 : 1, (long)device.Multiprocessors * blocksPerMultiprocessor);

    /// <summary>Whether a tensor's rows can be read in accesses of 16 bytes: its start, the distance of its rows and their width are multiples.</summary>
    private static bool IsWide(Tensor? tensor, long width) => tensor is null
        || tensor.Address % WideBytes == 0 && width * tensor.DType.Size % WideBytes == 0 && (tensor.Rank < 2 || tensor.RowStride() * tensor.DType.Size % WideBytes == 0);

    /// <summary>As <see cref="IsWide(Tensor?, long)"/> for rows of a vector of parameters that is read at the pace of another type: <paramref name="elements"/> at a time.</summary>
    private static bool IsAligned(Tensor? tensor, int elements) => tensor is null || tensor.Address % Math.Min(WideBytes, elements * tensor.DType.Size) == 0;

    private static int WideElements(DType dtype) => WideBytes / dtype.Size;

    /// <summary>Threads for a block that walks a row: a power of two of warps, no more than the row has work for.</summary>
    private static int RowThreads(long width, int perThread)
    {
        int threads = 32;
        while (threads < 256 && threads * (long)perThread < width) threads *= 2;
        return threads;
    }

    /// <summary>Dynamic shared memory of a block, or the designed error.</summary>
    private int SharedRow(string op, long bytes) => bytes <= device.SharedBytesPerBlock
        ? (int)bytes
        : throw new NotSupportedException($"{op}: a row needs {bytes:N0} bytes of shared memory, a block of {device} ({device.Description}) has {device.SharedBytesPerBlock:N0}.");

    /// <summary>A 32-bit size, or the designed error.</summary>
    private static int Size32(string op, string what, long size) =>
        size <= int.MaxValue ? (int)size : throw new NotSupportedException($"{op}: {what} is {size:N0}, the kernels take at most {int.MaxValue:N0}.");
}
