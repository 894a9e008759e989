using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string RopeFile = "Rope.cu";

    /// <summary>Heads for which a thread keeps its cosines and sines, where there is enough other work to fill the device.</summary>
    private const long RopeHeads = 8;

    /// <summary>Mirrors RopeArgs in kernels/Rope.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct RopeArgs
    {
        public ulong X, Cosine, Sine, Starts, Y;
        public long Offset, BatchStride, StepStride, HeadBytes, ChannelBytes, PairBytes;
        public int L, H, P, Pairs, HeadsPerThread, Items, Sequences, IsHalf, IsWide;
        public float Sign;
    }

    internal override void Rope(RopeInputs x, Tensor y)
    {
        (long batch, long length, long heads, long channels) = (y.Shape[0], y.Shape[1], y.Shape[2], y.Shape[3]);
        long pairs = x.Cosine.Shape[1];
        bool isHalf = x.Style == RotaryStyle.Half, isWide = IsRopeWide(x, y, isHalf ? pairs : 2 * pairs);
        int perThread = isWide ? WideElements(y.DType) : 1;
        // Half as many heads to a thread while the device is not full.
        long headsPerThread = RopeHeads, filled = (long)device.Multiprocessors * ElementThreads;
        while (headsPerThread > 1 && y.Count / perThread / headsPerThread < filled) headsPerThread /= 2;
        long units = isHalf ? pairs / perThread : 2 * pairs / Math.Max(2, perThread);
        units += (channels - 2 * pairs) / perThread;
        int items = Size32("Rope", "the number of accesses", batch * length * ((heads + headsPerThread - 1) / headsPerThread) * units);
        using Tensor? starts = UploadSequences(x.Layout);
        Kernel(RopeFile, $"rope<{y.DType}>").Launch(Blocks("Rope", items, ElementThreads), ElementThreads, 0, new RopeArgs
        {
            X = Pointer(x.X), Cosine = Pointer(x.Cosine), Sine = Pointer(x.Sine), Starts = Pointer(starts), Y = Pointer(y),
            Offset = x.Offset, BatchStride = x.X.Strides[0], StepStride = x.X.Strides[1], HeadBytes = x.X.Strides[2] * y.DType.Size, ChannelBytes = channels * y.DType.Size, PairBytes = pairs * y.DType.Size,
            L = Size32("Rope", "L", length), H = Size32("Rope", "H", heads), P = Size32("Rope", "P", channels), Pairs = (int)pairs, HeadsPerThread = (int)headsPerThread, Items = items,
            Sequences = x.Layout?.Count ?? 0, IsHalf = isHalf ? 1 : 0, IsWide = isWide ? 1 : 0, Sign = x.IsInverse ? -1 : 1,
        });
    }

    /// <summary>Whether every unit of a head is one access of 16 bytes: <paramref name="block"/> channels stand before those that they rotate with, or that do not rotate.</summary>
    private static bool IsRopeWide(RopeInputs x, Tensor y, long block)
    {
        int elements = WideElements(y.DType);
        return block % elements == 0 && y.Shape[3] % elements == 0 && x.X.Strides[0] % elements == 0 && x.X.Strides[1] % elements == 0 && x.X.Strides[2] % elements == 0
            && IsAligned(x.X, elements) && IsAligned(y, elements) && IsAligned(x.Cosine, elements) && IsAligned(x.Sine, elements);
    }
}
