using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string ElementwiseFile = "Elementwise.cu";
    private const int ElementThreads = 256, ElementBlocks = 8;

    /// <summary>Mirrors PointwiseArgs in kernels/Elementwise.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct PointwiseArgs
    {
        public ulong X, Dy, Y;
        public long N;
        public int Function, IsWide;
        public float Factor;
    }

    /// <summary>Mirrors PairwiseArgs in kernels/Elementwise.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct PairwiseArgs
    {
        public ulong A, B, Dy, Y, Da, Db;
        public long N;
        public StridedShape AShape, BShape;
        public int Function, IsDense, IsWide;
    }

    internal override void PointwiseForward(Pointwise function, Tensor x, Tensor y) =>
        LaunchElements(Kernel(ElementwiseFile, $"pointwise_forward<{x.DType}>"), x.Count, WideElements(x.DType), new PointwiseArgs
        {
            X = Pointer(x), Y = Pointer(y), N = x.Count, Function = (int)function, IsWide = AreAligned(x, y),
        });

    internal override void PointwiseBackward(Pointwise function, Tensor x, Tensor dy, Tensor dx) =>
        LaunchElements(Kernel(ElementwiseFile, $"pointwise_backward<{x.DType}>"), x.Count, WideElements(x.DType), new PointwiseArgs
        {
            X = Pointer(x), Dy = Pointer(dy), Y = Pointer(dx), N = x.Count, Function = (int)function, IsWide = AreAligned(x, dy, dx),
        });

    internal override void Scale(Tensor x, float factor, Tensor y) =>
        LaunchElements(Kernel(ElementwiseFile, $"scale<{x.DType}>"), x.Count, WideElements(x.DType), new PointwiseArgs
        {
            X = Pointer(x), Y = Pointer(y), N = x.Count, Factor = factor, IsWide = AreAligned(x, y),
        });

    internal override void PairwiseForward(Pairwise function, Tensor a, Tensor b, Tensor y)
    {
        StridedShape aShape = new(a, y.Count), bShape = new(b, y.Count);
        bool isDense = a.IsContiguous && b.IsContiguous;
        LaunchElements(Kernel(ElementwiseFile, $"pairwise_forward<{y.DType}>"), y.Count, WideElements(y.DType), new PairwiseArgs
        {
            A = Pointer(a), B = Pointer(b), Y = Pointer(y), N = y.Count, AShape = aShape, BShape = bShape, Function = (int)function,
            IsDense = isDense ? 1 : 0, IsWide = isDense ? AreAligned(a, b, y) : 0,
        });
    }

    internal override void SelectBackward(Pairwise function, Tensor a, Tensor b, Tensor dy, Tensor da, Tensor db) =>
        LaunchElements(Kernel(ElementwiseFile, $"select_backward<{dy.DType}>"), dy.Count, 1, new PairwiseArgs
        {
            A = Pointer(a), B = Pointer(b), Dy = Pointer(dy), Da = Pointer(da), Db = Pointer(db), N = dy.Count,
            AShape = new StridedShape(a, dy.Count), BShape = new StridedShape(b, dy.Count), Function = (int)function,
        });

    /// <summary>Launches a grid-stride loop over <paramref name="count"/> elements, <paramref name="perThread"/> of them to a thread at a time.</summary>
    private void LaunchElements<T>(CudaKernel kernel, long count, int perThread, in T args) where T : unmanaged =>
        kernel.Launch(PersistentBlocks(count, (long)ElementThreads * perThread, ElementBlocks), ElementThreads, 0, args);

    private static int AreAligned(params ReadOnlySpan<Tensor> tensors)
    {
        foreach (Tensor tensor in tensors)
            if (tensor.Address % WideBytes != 0) return 0;
        return 1;
    }
}
