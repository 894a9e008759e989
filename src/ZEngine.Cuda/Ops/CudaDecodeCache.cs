using System.Numerics;
using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string DecodeCacheFile = "DecodeCache.cu";
    private const int CacheThreads = 128, CacheRowsPerBlock = 4, CacheRowElements = 8;

    /// <summary>Mirrors CacheArgs in kernels/common/DecodeCache.cuh, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CacheArgs
    {
        public ulong Keys, Values, Scales, Pages, Lengths, Tickets;
        public int B, G, P, TableWidth, PageCount, Window;
        public int PageRows, PageMask, PageShift, Capacity;
    }

    /// <summary>Mirrors CacheRowsArgs in kernels/DecodeCache.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CacheRowsArgs
    {
        public ulong K, V;
        public CacheArgs Cache;
        public long L, First, KBatch, KStep, KHead, VBatch, VStep, VHead;
        public int IsWide, Unused;
    }

    internal override void AppendKeyValues(Tensor k, Tensor v, DecodeCache cache) =>
        LaunchCacheRows($"decode_cache_append<{k.DType}, {cache.Keys.DType}>", nameof(AppendKeyValues), k, v, 0, cache);

    internal override void ReadKeyValues(DecodeCache cache, long first, Tensor keys, Tensor values) =>
        LaunchCacheRows($"decode_cache_read<{keys.DType}, {cache.Keys.DType}>", nameof(ReadKeyValues), keys, values, first, cache);

    private void LaunchCacheRows(scoped KernelExpression expression, string op, Tensor k, Tensor v, long first, DecodeCache cache)
    {
        CacheArgs rows = ArgsOf(op, cache);
        bool isWide = IsCacheWide(cache, CacheRowElements) && IsRowWide(k) && IsRowWide(v);
        int blocks = Blocks(op, k.Shape[0] * k.Shape[1] * k.Shape[2], CacheRowsPerBlock);
        Kernel(DecodeCacheFile, expression).Launch(blocks, CacheThreads, 0, new CacheRowsArgs
        {
            K = Pointer(k), V = Pointer(v), Cache = rows, L = k.Shape[1], First = first, KBatch = k.Strides[0], KStep = k.Strides[1], KHead = k.Strides[2],
            VBatch = v.Strides[0], VStep = v.Strides[1], VHead = v.Strides[2], IsWide = isWide ? 1 : 0,
        });
    }

    private static CacheArgs ArgsOf(string op, DecodeCache cache)
    {
        long p = cache.Keys.Shape[3], size = cache.Keys.Shape[1];
        if (p > AttentionDecodePlan.MostChannels) throw new NotSupportedException($"{op}: cache.Keys has heads of {p} channels, a CUDA device takes at most {AttentionDecodePlan.MostChannels}.");
        if (cache.Capacity > AttentionDecodePlan.MostPositions) throw new NotSupportedException($"{op}: a sequence has room for {cache.Capacity:N0} tokens, a CUDA device takes at most {AttentionDecodePlan.MostPositions:N0}.");
        bool isPaged = cache.Pages is not null;
        return new CacheArgs
        {
            Keys = Pointer(cache.Keys), Values = Pointer(cache.Values), Scales = Pointer(cache.Scales), Pages = Pointer(cache.Pages), Lengths = Pointer(cache.Lengths), Tickets = Pointer(cache.Tickets),
            PageRows = Size32(op, "S", size), PageMask = isPaged || cache.IsRing ? (int)size - 1 : int.MaxValue, PageShift = isPaged ? BitOperations.Log2((ulong)size) : 31,
            Capacity = (int)cache.Capacity, B = Size32(op, "B", cache.Batch), G = Size32(op, "G · P", cache.Keys.Shape[2] * p) / (int)p, P = (int)p,
            TableWidth = Size32(op, "the number of a sequence's pages", cache.Pages?.Shape[1] ?? 1), PageCount = Size32(op, "the number of pages", cache.Keys.Shape[0]),
            Window = (int)Math.Min(cache.Window, int.MaxValue),
        };
    }

    /// <summary>Whether the cache's rows are whole accesses of so many elements, and stand at multiples of one.</summary>
    private static bool IsCacheWide(DecodeCache cache, int elements) =>
        cache.Keys.Shape[3] % elements == 0 && IsAligned(cache.Keys, elements) && IsAligned(cache.Values, elements);

    /// <summary>The same for rows of activations with any strides, 16 bytes at a time.</summary>
    private static bool IsRowWide(Tensor x)
    {
        int elements = WideElements(x.DType);
        return x.Address % WideBytes == 0 && x.Shape[^1] % elements == 0 && x.Strides[0] % elements == 0 && x.Strides[1] % elements == 0 && x.Strides[2] % elements == 0;
    }
}
