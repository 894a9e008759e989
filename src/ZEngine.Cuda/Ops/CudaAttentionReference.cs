using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string AttentionReferenceFile = "AttentionReference.cu";
    private const int SoftmaxThreads = 128;

    /// <summary>Mirrors AttentionRange in kernels/AttentionReference.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct AttentionRange
    {
        public ulong CuSeqlens;
        public long Window;
        public int Sequences, IsCausal;
    }

    /// <summary>Mirrors AttentionSoftmaxArgs in kernels/AttentionReference.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct AttentionSoftmaxArgs
    {
        public ulong Scores, Lse, Dp, DLse;
        public long L, S;
        public AttentionRange Mask;
        public int H;
        public float Scale, Cap;
    }

    /// <summary>
    /// The plain composition in Float32, scores whole in memory, 4·B·H·L·S bytes: what the fused kernels are measured and checked against. No op calls it.
    /// </summary>
    internal void AttentionReferenceForward(AttentionInputs x, Tensor o, Tensor lse)
    {
        if (o.Count == 0) return;
        using var f = new FloatAttention(x);
        using Tensor scores = Scores(f), output = Tensor.Empty(o.Shape, DType.Float32, o.Device);
        using Tensor? cuSeqlens = UploadSequences(x.Options.Layout);
        Kernel(AttentionReferenceFile, $"attention_softmax_forward").Launch(Blocks("Attention", f.Queries), SoftmaxThreads, 0, new AttentionSoftmaxArgs
        {
            Scores = Pointer(scores), Lse = Pointer(lse), L = f.L, S = f.S, Mask = MaskOf(x.Options, cuSeqlens), H = (int)f.H, Scale = x.Scale, Cap = x.Options.SoftCap,
        });
        Multiply(new Product(f.L, f.P, f.S, f.B) { A = f.RowsOf(scores), B = FloatAttention.KeysOf(f.V), Y = f.QueriesOf(output), Inners = (int)f.H, Repeat = f.Repeat });
        Copy(output, o);
    }

    /// <summary>As <see cref="AttentionReferenceForward"/>, backward.</summary>
    internal void AttentionReferenceBackward(AttentionInputs x, Tensor o, Tensor dO, Tensor? dLse, Tensor dQ, Tensor dK, Tensor dV)
    {
        if (o.Count == 0 || x.K.Count == 0)
        {
            foreach (Tensor gradient in (ReadOnlySpan<Tensor>)[dQ, dK, dV]) gradient.Clear();
            return;
        }
        using var f = new FloatAttention(x);
        using Tensor scores = Scores(f), dScores = Tensor.Empty(scores.Shape, DType.Float32, o.Device), floatDO = AsFloat(dO);
        using Tensor? cuSeqlens = UploadSequences(x.Options.Layout);
        Multiply(new Product(f.L, f.S, f.P, f.B) { A = f.QueriesOf(floatDO), B = FloatAttention.KeysOf(f.V), Y = f.RowsOf(dScores), TransposeB = true, Inners = (int)f.H, Repeat = f.Repeat });
        Kernel(AttentionReferenceFile, $"attention_softmax_backward").Launch(Blocks("Attention", f.Queries), SoftmaxThreads, 0, new AttentionSoftmaxArgs
        {
            Scores = Pointer(scores), Dp = Pointer(dScores), DLse = Pointer(dLse), L = f.L, S = f.S, Mask = MaskOf(x.Options, cuSeqlens), H = (int)f.H, Scale = x.Scale, Cap = x.Options.SoftCap,
        });
        using Tensor floatDQ = Tensor.Empty(dQ.Shape, DType.Float32, o.Device), floatDK = Tensor.Empty(dK.Shape, DType.Float32, o.Device), floatDV = Tensor.Empty(dV.Shape, DType.Float32, o.Device);
        Multiply(new Product(f.L, f.P, f.S, f.B) { A = f.RowsOf(dScores), B = FloatAttention.KeysOf(f.K), Y = f.QueriesOf(floatDQ), Inners = (int)f.H, Repeat = f.Repeat });
        // Query heads that share a key head add to its gradient one after the other.
        for (int r = 0; r < f.Repeat; r++)
        {
            Multiply(new Product(f.S, f.P, f.L, f.B) { A = f.RowsOf(scores, r), TransposeA = true, B = f.QueriesOf(floatDO, r), Y = FloatAttention.KeysOf(floatDV), Inners = (int)f.G, IsAdding = r > 0 });
            Multiply(new Product(f.S, f.P, f.L, f.B) { A = f.RowsOf(dScores, r), TransposeA = true, B = f.QueriesOf(f.Q, r), Y = FloatAttention.KeysOf(floatDK), Inners = (int)f.G, IsAdding = r > 0 });
        }
        Copy(floatDQ, dQ);
        Copy(floatDK, dK);
        Copy(floatDV, dV);
    }

    private Tensor Scores(FloatAttention f)
    {
        Tensor scores = Tensor.Empty([f.B, f.H, f.L, f.S], DType.Float32, f.Q.Device);
        Multiply(new Product(f.L, f.S, f.P, f.B) { A = f.QueriesOf(f.Q), B = FloatAttention.KeysOf(f.K), Y = f.RowsOf(scores), TransposeB = true, Inners = (int)f.H, Repeat = f.Repeat });
        return scores;
    }

    private static AttentionRange MaskOf(AttentionOptions options, Tensor? cuSeqlens) =>
        new() { CuSeqlens = Pointer(cuSeqlens), Window = options.Window, Sequences = options.Layout?.Count ?? 0, IsCausal = options.IsCausal ? 1 : 0 };

    /// <summary>Another handle on a Float32 tensor, or a copy in that type.</summary>
    private static Tensor AsFloat(Tensor tensor)
    {
        using NoGradient pause = Tape.NoGrad();
        return TensorScope.Release(tensor.DType == DType.Float32 ? tensor.Detach() : tensor.To(DType.Float32));
    }

    /// <summary>The inputs in Float32, and where their heads stand.</summary>
    private sealed class FloatAttention(AttentionInputs x) : IDisposable
    {
        public readonly Tensor Q = AsFloat(x.Q), K = AsFloat(x.K), V = AsFloat(x.V);
        public readonly long B = x.Q.Shape[0], L = x.Q.Shape[1], H = x.Q.Shape[2], P = x.Q.Shape[3], S = x.K.Shape[1], G = x.K.Shape[2];

        public int Repeat => (int)(H / G);

        public long Queries => B * H * L;

        /// <summary>[B, L, H, P] by heads; from head <paramref name="first"/> on in steps of <see cref="Repeat"/> where it is given.</summary>
        public Operand QueriesOf(Tensor q, int? first = null) =>
            new(q, q.Strides[1], q.Strides[0], q.Strides[2] * (first is null ? 1 : Repeat), q.Strides[2] * (first ?? 0));

        /// <summary>[B, S, G, P] by heads.</summary>
        public static Operand KeysOf(Tensor k) => new(k, k.Strides[1], k.Strides[0], k.Strides[2]);

        /// <summary>[B, H, L, S] by heads.</summary>
        public Operand RowsOf(Tensor scores, int? first = null) => new(scores, S, H * L * S, L * S * (first is null ? 1 : Repeat), L * S * (first ?? 0));

        public void Dispose()
        {
            Q.Dispose();
            K.Dispose();
            V.Dispose();
        }
    }
}
