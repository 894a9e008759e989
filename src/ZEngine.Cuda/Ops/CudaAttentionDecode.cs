using System.Runtime.InteropServices;
using ZEngine.Interop;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string AttentionDecodeFile = "AttentionDecode.cu";
    private const int DecodeThreads = 128;

    /// <summary>The largest grid in y and z.</summary>
    private const int MaxGridYz = 65535;

    /// <summary>Mirrors DecodeArgs in kernels/AttentionDecode.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct DecodeArgs
    {
        public ulong Q, K, V, Cosine, Sine, Positions;
        public ulong O, Lse, PartialO, PartialMax;
        public CacheArgs Cache;
        public long QBatch, QHead, KBatch, KHead, VBatch, VHead, TableRows;
        public int H, Pairs, Window, Split, Stages, IsHalf, IsWide, IsQWide;
        public float Scale, Cap;
    }

    internal override void AttentionDecode(AttentionDecodeInputs x, Tensor o, Tensor lse)
    {
        if (o.Count == 0) return;
        (long batch, long heads, long groups, long p) = (o.Shape[0], o.Shape[2], x.Cache.Keys.Shape[2], o.Shape[3]);
        CacheArgs cache = ArgsOf(nameof(AttentionDecode), x.Cache);
        if (batch > MaxGridYz || groups > MaxGridYz) throw new NotSupportedException($"AttentionDecode: B = {batch} and G = {groups} must be at most {MaxGridYz} on a CUDA device.");
        var plan = AttentionDecodePlan.For(heads / groups, p, o.DType, x.Cache.Keys.DType, x.Cache.Capacity, x.Window);
        long partials = plan.Splits == 1 ? 0 : batch * heads * plan.Splits;
        using Tensor partialO = Tensor.Empty([partials, (p + 3) / 4 * 4], DType.Float32, o.Device), partialMax = Tensor.Empty([partials, 2], DType.Float32, o.Device);
        Kernel(AttentionDecodeFile, $"attention_decode<{o.DType}, {x.Cache.Keys.DType}>").Launch(new Dim3(plan.Splits, (int)groups, (int)batch), DecodeThreads, SharedRow(nameof(AttentionDecode), plan.SharedBytes), new DecodeArgs
        {
            Q = Pointer(x.Q), K = Pointer(x.K), V = Pointer(x.V), Cosine = Pointer(x.Rotary?.Cosine), Sine = Pointer(x.Rotary?.Sine), Positions = Pointer(x.Rotary?.Positions),
            O = Pointer(o), Lse = Pointer(lse), PartialO = Pointer(partialO), PartialMax = Pointer(partialMax), Cache = cache,
            QBatch = x.Q.Strides[0], QHead = x.Q.Strides[2], KBatch = x.K?.Strides[0] ?? 0, KHead = x.K?.Strides[2] ?? 0, VBatch = x.V?.Strides[0] ?? 0, VHead = x.V?.Strides[2] ?? 0,
            TableRows = x.Rotary?.Cosine.Shape[0] ?? 0, Window = (int)Math.Min(x.Window, int.MaxValue), H = Size32(nameof(AttentionDecode), "H", heads), Pairs = (int)(x.Rotary?.Cosine.Shape[1] ?? 0),
            Split = plan.Split, Stages = plan.Stages, IsHalf = x.Rotary?.Style == RotaryStyle.Half ? 1 : 0,
            IsWide = IsCacheWide(x.Cache, WideElements(x.Cache.Keys.DType)) ? 1 : 0, IsQWide = IsRowWide(x.Q) ? 1 : 0, Scale = x.Scale, Cap = x.SoftCap,
        });
    }
}
