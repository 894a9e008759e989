using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string AttentionBackwardFile = "AttentionBackward.cu";
    private const int DeltaThreads = 128;

    /// <summary>Mirrors AttentionDeltaArgs in kernels/AttentionBackward.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct AttentionDeltaArgs
    {
        public ulong O, DO, Lse, Rest, DLse, DQ, Stats, Turns;
        public AttentionShape Shape;
        public int Rows, Unused;
    }

    /// <summary>Mirrors AttentionBackwardArgs in kernels/AttentionBackward.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct AttentionBackwardArgs
    {
        public ulong DO, Stats, Turns, Sums, DQ, DK, DV, FirstQueryTiles;
        public AttentionShape Shape;
        public int QueryTiles, Stages;
        public float Scale;
        public int Unused;
    }

    internal override void AttentionBackward(AttentionInputs x, Tensor o, Tensor lse, Tensor? rest, Tensor dO, Tensor? dLse, Tensor dQ, Tensor dK, Tensor dV)
    {
        if (o.Count == 0 || x.K.Count == 0)
        {
            foreach (Tensor gradient in (ReadOnlySpan<Tensor>)[dQ, dK, dV]) gradient.Clear();
            return;
        }
        AttentionPlan overKeys = AttentionPlan.Backward(SizesOf(x), x.Q.DType, device.SharedBytesPerBlock), overQueries = overKeys with { IsOverKeys = false, Heads = 1 };
        using Tensor? queryStarts = UploadTiles(x.Options.Layout, overQueries), keyStarts = UploadTiles(x.Options.Layout, overKeys);
        AttentionShape queries = ShapeOf(x, overQueries, queryStarts, o), keys = ShapeOf(x, overKeys, keyStarts, o);
        queries.IsWide = keys.IsWide = keys.IsWide != 0 && IsWide(dO, keys.P) && IsWide(dQ, keys.P) && IsWide(dK, keys.P) && IsWide(dV, keys.P) ? 1 : 0;
        long tiles = (long)queries.Pairs * queries.Tiles;
        using Tensor stats = Tensor.Empty([tiles, AttentionPlan.StatsOf(x.Q.DType), overKeys.Rows], DType.Float32, o.Device);
        using Tensor turns = Tensor.Empty([tiles + 1], DType.Int32, o.Device), sums = Tensor.Empty([tiles, overKeys.SumsOfTile(x.Q.DType)], DType.Float32, o.Device);
        Kernel(AttentionBackwardFile, $"attention_delta_backward<{x.Q.DType}>").Launch(Blocks("Attention", tiles), DeltaThreads, 0, new AttentionDeltaArgs
        {
            O = Pointer(o), DO = Pointer(dO), Lse = Pointer(lse), Rest = Pointer(rest), DLse = Pointer(dLse), DQ = Pointer(dQ), Stats = Pointer(stats), Turns = Pointer(turns),
            Shape = queries, Rows = overKeys.Rows,
        });
        Kernel(AttentionBackwardFile, $"attention_backward<{x.Q.DType}, {overKeys.Width}, {overKeys.Keys}>").Launch(
            Blocks("Attention", (long)keys.Pairs * keys.Tiles), overKeys.Threads, overKeys.SharedBytes, new AttentionBackwardArgs
            {
                DO = Pointer(dO), Stats = Pointer(stats), Turns = Pointer(turns), Sums = Pointer(sums), DQ = Pointer(dQ), DK = Pointer(dK), DV = Pointer(dV),
                FirstQueryTiles = queryStarts is null ? 0 : Pointer(queryStarts) + (ulong)(queries.Sequences + 1) * sizeof(long),
                Shape = keys, QueryTiles = queries.Tiles, Stages = overKeys.Stages, Scale = x.Scale,
            });
    }
}
