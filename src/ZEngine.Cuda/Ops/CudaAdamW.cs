namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override void AdamW(IReadOnlyList<AdamWSlot> slots, AdamWOptions options, float learningRate, Tensor step, Tensor? gradientNorm, float maxNorm) => throw NoKernel("AdamW");

    internal override void Norm(IReadOnlyList<Tensor> tensors, Tensor norm) => throw NoKernel("AdamW");
}
