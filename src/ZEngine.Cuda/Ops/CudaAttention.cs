using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string AttentionForwardFile = "AttentionForward.cu";

    /// <summary>Mirrors AttentionShape in kernels/common/Attention.cuh, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct AttentionShape
    {
        public ulong Q, K, V, Starts;
        public long QBatch, QStep, QHead, KBatch, KStep, KHead, VBatch, VStep, VHead;
        public int L, S, H, G, P, Sequences, Tiles, Units, Pairs, Together, Window, IsCausal, IsWide;
        public float Factor, Cap, Inner;
    }

    /// <summary>Mirrors AttentionForwardArgs in kernels/AttentionForward.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct AttentionForwardArgs
    {
        public ulong O, Lse, Rest;
        public AttentionShape Shape;
    }

    /// <summary>
    /// Of lse in Float32; of o in 16 bits the next 8. delta = dO·o must be the mean of dO·v under p: what o lost would otherwise count as often as there are large keys.
    /// </summary>
    internal override Tensor? AttentionRest(Tensor o, Tensor lse) => o.DType == DType.Float32 ? Tensor.EmptyLike(lse) : Tensor.Empty(o.Shape, DType.Int8, o.Device);

    internal override void AttentionForward(AttentionInputs x, Tensor o, Tensor lse, Tensor? rest)
    {
        if (lse.Count == 0) return;
        AttentionPlan plan = AttentionPlan.Forward(SizesOf(x), x.Q.DType, device.Architecture);
        using Tensor? starts = UploadTiles(x.Options.Layout, plan);
        var args = new AttentionForwardArgs { O = Pointer(o), Lse = Pointer(lse), Rest = Pointer(rest), Shape = ShapeOf(x, plan, starts, o) };
        Kernel(AttentionForwardFile, $"attention_forward<{x.Q.DType}, {plan.Width}, {plan.Keys}, {plan.Slice}>").Launch(
            Blocks("Attention", (long)args.Shape.Pairs * args.Shape.Tiles), plan.Threads, plan.SharedBytes, args);
    }

    private static AttentionSizes SizesOf(AttentionInputs x) => new(
        x.Options.Layout?.Count ?? Size32("Attention", "B", x.Q.Shape[0]), x.Q.Shape[1], x.K.Shape[1],
        Size32("Attention", "H", x.Q.Shape[2]), Size32("Attention", "G", x.K.Shape[2]), Size32("Attention", "P", x.Q.Shape[3]), x.Options.Layout is not null);

    /// <summary>Of packed sequences: where each begins, then the number of its first tile; one more of both than there are sequences.</summary>
    private Tensor? UploadTiles(SequenceLayout? layout, AttentionPlan plan)
    {
        if (layout is null) return null;
        var table = new long[2 * (layout.Count + 1)];
        layout.CuSeqlens.CopyTo(table);
        for (int i = 0; i < layout.Count; i++) table[layout.Count + 2 + i] = table[layout.Count + 1 + i] + plan.TilesOf(layout.End(i) - layout.Start(i));
        return Upload<long>(table);
    }

    private static AttentionShape ShapeOf(AttentionInputs x, AttentionPlan plan, Tensor? starts, Tensor o)
    {
        AttentionOptions options = x.Options;
        AttentionSizes sizes = SizesOf(x);
        // A score in units of log2 is what the kernels make powers of. Not 0: −∞ times it must stay −∞.
        float log2E = (float)Math.Log2(Math.E), factor = options.SoftCap > 0 ? 1 : Math.Max(Math.Abs(x.Scale) * log2E, 1e-30f);
        long tiles = options.Layout is { } layout ? Enumerable.Range(0, layout.Count).Sum(i => plan.TilesOf(layout.End(i) - layout.Start(i))) : plan.TilesOf(plan.IsOverKeys ? sizes.S : sizes.L);
        int units = sizes.H / plan.Heads, pairs = Size32("Attention", "B·H", (long)units * x.Q.Shape[0]);
        return new AttentionShape
        {
            Q = Pointer(x.Q), K = Pointer(x.K), V = Pointer(x.V), Starts = Pointer(starts),
            QBatch = x.Q.Strides[0], QStep = x.Q.Strides[1], QHead = x.Q.Strides[2], KBatch = x.K.Strides[0], KStep = x.K.Strides[1], KHead = x.K.Strides[2],
            VBatch = x.V.Strides[0], VStep = x.V.Strides[1], VHead = x.V.Strides[2],
            L = Size32("Attention", "L·H / G", sizes.L * plan.Heads) / plan.Heads, S = Size32("Attention", "S", sizes.S), H = sizes.H, G = sizes.G, P = sizes.P,
            Sequences = sizes.Sequences, Tiles = Size32("Attention", "tiles", tiles), Units = units, Pairs = pairs, Together = Math.Min(plan.Together, pairs),
            Window = (int)Math.Min(options.Window, int.MaxValue), IsCausal = options.IsCausal ? 1 : 0,
            IsWide = HasWideRows(x.Q) && HasWideRows(x.K) && HasWideRows(x.V) && IsWide(o, sizes.P) ? 1 : 0,
            Factor = factor, Cap = options.SoftCap * log2E, Inner = options.SoftCap > 0 ? x.Scale / options.SoftCap : x.Scale,
        };
    }
}
