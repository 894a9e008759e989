using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string TreeAttentionFile = "TreeAttention.cu";
    private const int MaxMergedParts = 64, MergeThreads = 128;

    [InlineArray(MaxMergedParts)]
    private struct PartPointers
    {
        private ulong _address;
    }

    /// <summary>Mirrors MergeArgs in kernels/TreeAttention.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct MergeArgs
    {
        public PartPointers PartO, PartLse;
        public ulong O, Lse;
        public long R, Step, LseStep;
        public int P, Parts, Lanes, Unused;
    }

    /// <summary>Mirrors MergeBackwardArgs in kernels/TreeAttention.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct MergeBackwardArgs
    {
        public PartPointers PartO, PartLse, DPartO, DPartLse;
        public ulong O, Lse, DO, DLse;
        public long R, Step, LseStep;
        public int P, Parts, Lanes, Unused;
    }

    internal override void MergeAttentionForward(Tensor[] inputs, MergeSteps steps, Tensor o, Tensor lse)
    {
        (bool isWide, int lanes, int blocks) = MergePlan(inputs, steps, o);
        var args = new MergeArgs { O = Pointer(o), Lse = Pointer(lse), R = lse.Count, Step = steps.O, LseStep = steps.Lse, P = Size32("TreeAttention", "P", o.Shape[^1]), Parts = inputs.Length / 2, Lanes = lanes };
        PutParts(inputs, ref args.PartO, ref args.PartLse);
        Kernel(TreeAttentionFile, $"merge_attention_forward<{o.DType}, {isWide}>").Launch(blocks, MergeThreads, 0, args);
    }

    internal override void MergeAttentionBackward(Tensor[] inputs, MergeSteps steps, Tensor o, Tensor lse, Tensor dO, Tensor? dLse, Tensor[] d)
    {
        (bool isWide, int lanes, int blocks) = MergePlan([.. inputs, .. d], steps, o, dO);
        var args = new MergeBackwardArgs
        {
            O = Pointer(o), Lse = Pointer(lse), DO = Pointer(dO), DLse = Pointer(dLse), R = lse.Count, Step = steps.O, LseStep = steps.Lse, P = Size32("TreeAttention", "P", o.Shape[^1]), Parts = inputs.Length / 2, Lanes = lanes,
        };
        PutParts(inputs, ref args.PartO, ref args.PartLse);
        PutParts(d, ref args.DPartO, ref args.DPartLse);
        Kernel(TreeAttentionFile, $"merge_attention_backward<{o.DType}, {isWide}>").Launch(blocks, MergeThreads, 0, args);
    }

    /// <summary>Enough lanes to a row that each has one access, a warp at most.</summary>
    private static (bool IsWide, int Lanes, int Blocks) MergePlan(Tensor[] parts, MergeSteps steps, params ReadOnlySpan<Tensor> others)
    {
        Tensor o = others[0];
        int wide = WideElements(o.DType);
        bool isWide = o.Shape[^1] % wide == 0 && steps.O % wide == 0 && AreAligned(parts) == 1 && AreAligned(others) == 1;
        long groups = o.Shape[^1] / (isWide ? wide : 1);
        int lanes = (int)BitOperations.RoundUpToPowerOf2((uint)Math.Clamp(groups, 1, 32));
        long rows = 1;
        foreach (long size in o.Shape[..^1]) rows *= size;
        return (isWide, lanes, Blocks("TreeAttention", rows, MergeThreads / lanes));
    }

    /// <summary>Every o, then every lse.</summary>
    private static void PutParts(Tensor[] tensors, ref PartPointers o, ref PartPointers lse)
    {
        int parts = tensors.Length / 2;
        if (parts > MaxMergedParts) throw new NotSupportedException($"TreeAttention: {parts} parts are to be merged at once, the kernel takes {MaxMergedParts}. Give a groupSize of at most {MaxMergedParts}.");
        for (int i = 0; i < parts; i++) (o[i], lse[i]) = (Pointer(tensors[i]), Pointer(tensors[parts + i]));
    }
}
