using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string AdamWFile = "AdamW.cu";

    /// <summary>Elements of a block; kChunk in kernels/AdamW.cu.</summary>
    private const long AdamWChunk = 8192;

    /// <summary>Blocks of a norm at most, but for one that each tensor's remainder adds.</summary>
    private const long NormBlocks = 4096;

    /// <summary>Mirrors AdamWPart in kernels/AdamW.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct AdamWPart
    {
        public long Value, P, G, M, V;
        public long N, FirstBlock;
        public int Type, IsDecayed, IsWide, Unused;
    }

    /// <summary>Mirrors AdamWArgs in kernels/AdamW.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct AdamWArgs
    {
        public ulong Memory, Parts, Ticket, Step, Norm, Rate;
        public double Beta1, Beta2, LearningRate, WeightDecay;
        public float Epsilon, MaxNorm;
        public int Count, Unused;
    }

    /// <summary>Mirrors NormPart in kernels/AdamW.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct NormPart
    {
        public long X, N, FirstBlock;
        public int IsWide, Unused;
    }

    /// <summary>Mirrors NormArgs in kernels/AdamW.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct NormArgs
    {
        public ulong Memory, Parts, Partial, Norm;
        public long Chunk;
        public int Count, P;
    }

    internal override unsafe void AdamW(IReadOnlyList<AdamWSlot> slots, AdamWOptions options, LearningRate learningRate, Tensor step, Tensor? gradientNorm, float maxNorm)
    {
        var parts = new AdamWPart[slots.Count + 1];            // the last, all zero, is the ticket
        (int count, long blocks) = (0, 0);
        foreach (AdamWSlot slot in slots)
        {
            if (slot.Value.Count == 0) continue;
            parts[count++] = PartOf(slot) with { FirstBlock = blocks };
            blocks += (slot.Value.Count + AdamWChunk - 1) / AdamWChunk;
        }
        using Tensor table = Upload<AdamWPart>(parts);
        Kernel(AdamWFile, $"adamw").Launch(Blocks("AdamW", Math.Max(1, blocks)), ElementThreads, 0, new AdamWArgs
        {
            Parts = Pointer(table), Ticket = Pointer(table) + (ulong)(slots.Count * sizeof(AdamWPart)), Step = Pointer(step), Norm = Pointer(gradientNorm), Rate = Pointer(learningRate.Tensor),
            Beta1 = options.Beta1, Beta2 = options.Beta2, LearningRate = learningRate.Number, WeightDecay = options.WeightDecay,
            Epsilon = (float)options.Epsilon, MaxNorm = maxNorm, Count = count,
        });
    }

    internal override void Norm(IReadOnlyList<Tensor> tensors, Tensor norm)
    {
        long total = 0;
        foreach (Tensor tensor in tensors) total += tensor.Count;
        long chunk = Math.Max(AdamWChunk, (total / NormBlocks + AdamWChunk - 1) / AdamWChunk * AdamWChunk);
        var parts = new NormPart[tensors.Count];
        (int count, long blocks) = (0, 0);
        foreach (Tensor tensor in tensors)
        {
            if (tensor.Count == 0) continue;
            parts[count++] = new NormPart { X = tensor.Address, N = tensor.Count, FirstBlock = blocks, IsWide = AreAligned(tensor) };
            blocks += (tensor.Count + chunk - 1) / chunk;
        }
        using Tensor table = Upload<NormPart>(parts), partial = Tensor.Empty([2 * Math.Max(1, blocks)], DType.Float32, norm.Device);
        var args = new NormArgs { Parts = Pointer(table), Partial = Pointer(partial), Norm = Pointer(norm), Chunk = chunk, Count = count, P = Blocks("Norm", blocks) };
        Kernel(AdamWFile, $"norm_squares").Launch(args.P, ElementThreads, 0, args);
        Kernel(AdamWFile, $"norm_total").Launch(1, ElementThreads, 0, args);
    }

    private static AdamWPart PartOf(in AdamWSlot slot)
    {
        Tensor master = slot.Master ?? slot.Value;
        bool isValueAligned = slot.Value.Address % (4 * slot.Value.DType.Size) == 0;
        return new AdamWPart
        {
            Value = slot.Master is null ? 0 : slot.Value.Address, P = master.Address, G = slot.Gradient.Address, M = slot.FirstMoment.Address, V = slot.SecondMoment.Address,
            N = slot.Value.Count, Type = (int)slot.Value.DType, IsDecayed = slot.IsDecayed ? 1 : 0,
            IsWide = isValueAligned ? AreAligned(master, slot.Gradient, slot.FirstMoment, slot.SecondMoment) : 0,
        };
    }
}
