namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override void MergeAttentionForward(Tensor[] inputs, Tensor o, Tensor lse) => throw NoKernel("TreeAttention");

    internal override void MergeAttentionBackward(Tensor[] inputs, Tensor o, Tensor lse, Tensor dO, Tensor? dLse, Tensor[] d) => throw NoKernel("TreeAttention");
}
