using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string CrossEntropyFile = "CrossEntropy.cu";

    /// <summary>As in kernels/CrossEntropy.cu: groups of a thread in the backward, and threads of the block that finds the mean.</summary>
    private const int CrossEntropyPieces = 4, MeanThreads = 1024;

    /// <summary>Mirrors CrossEntropyArgs in kernels/CrossEntropy.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CrossEntropyArgs
    {
        public ulong X, Targets, Partition, Losses;
        public long XStride, Ignored;
        public int V, IsLong;
        public float Smoothing, ZLoss;
    }

    /// <summary>Mirrors CrossEntropyMeanArgs in kernels/CrossEntropy.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CrossEntropyMeanArgs
    {
        public ulong Losses, Targets, Loss, Counted;
        public long R, Ignored;
        public int IsLong;
    }

    /// <summary>Mirrors CrossEntropyBackwardArgs in kernels/CrossEntropy.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CrossEntropyBackwardArgs
    {
        public ulong X, Targets, Partition, Counted, Dloss, Dx;
        public long XStride, Ignored;
        public int V, IsLong, Pieces;
        public float Smoothing, ZLoss;
    }

    internal override void CrossEntropyForward(Tensor logits, Tensor targets, CrossEntropyOptions options, Tensor partition, Tensor loss, Tensor counted)
    {
        (long rows, int classes) = (targets.Count, Size32("CrossEntropy", "V", logits.Shape[^1]));
        using Tensor losses = Tensor.Empty([rows], DType.Float32, logits.Device);
        Kernel(CrossEntropyFile, $"cross_entropy_forward<{logits.DType}>")
            .Launch(Blocks("CrossEntropy", rows), RowThreads(classes, WideElements(logits.DType)), 0, new CrossEntropyArgs
            {
                X = Pointer(logits), Targets = Pointer(targets), Partition = Pointer(partition), Losses = Pointer(losses),
                XStride = logits.RowStride(), Ignored = options.IgnoreIndex, V = classes, IsLong = IsLong(targets), Smoothing = options.LabelSmoothing, ZLoss = options.ZLoss,
            });
        Kernel(CrossEntropyFile, $"cross_entropy_mean").Launch(1, MeanThreads, 0, new CrossEntropyMeanArgs
        {
            Losses = Pointer(losses), Targets = Pointer(targets), Loss = Pointer(loss), Counted = Pointer(counted), R = rows, Ignored = options.IgnoreIndex, IsLong = IsLong(targets),
        });
    }

    internal override void CrossEntropyBackward(Tensor logits, Tensor targets, CrossEntropyOptions options, Tensor partition, Tensor counted, Tensor dLoss, Tensor dLogits)
    {
        int classes = Size32("CrossEntropy", "V", logits.Shape[^1]), group = WideElements(logits.DType), threads = RowThreads(classes, group);
        // A row that does not begin at a 16-byte boundary reaches into one group more.
        int pieces = Blocks("CrossEntropy", (classes + 2L * (group - 1)) / group, (long)threads * CrossEntropyPieces);
        Kernel(CrossEntropyFile, $"cross_entropy_backward<{logits.DType}>")
            .Launch(Blocks("CrossEntropy", targets.Count * pieces), threads, 0, new CrossEntropyBackwardArgs
            {
                X = Pointer(logits), Targets = Pointer(targets), Partition = Pointer(partition), Counted = Pointer(counted), Dloss = Pointer(dLoss), Dx = Pointer(dLogits),
                XStride = logits.RowStride(), Ignored = options.IgnoreIndex, V = classes, IsLong = IsLong(targets), Pieces = pieces, Smoothing = options.LabelSmoothing, ZLoss = options.ZLoss,
            });
    }
}
