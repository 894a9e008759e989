namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override void EmbeddingForward(Tensor table, Tensor tokens, Tensor y) => throw NoKernel("Embedding");

    internal override void EmbeddingBackward(Tensor tokens, Tensor dy, Tensor dTable) => throw NoKernel("Embedding");
}
