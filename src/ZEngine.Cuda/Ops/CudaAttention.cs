namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override void AttentionForward(AttentionInputs x, Tensor o, Tensor lse) => throw NoKernel("Attention");

    internal override void AttentionBackward(AttentionInputs x, Tensor o, Tensor lse, Tensor dO, Tensor? dLse, Tensor dQ, Tensor dK, Tensor dV) => throw NoKernel("Attention");
}
