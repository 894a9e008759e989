namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override void CrossEntropyForward(Tensor logits, Tensor targets, CrossEntropyOptions options, Tensor partition, Tensor loss, Tensor counted) => throw NoKernel("CrossEntropy");

    internal override void CrossEntropyBackward(Tensor logits, Tensor targets, CrossEntropyOptions options, Tensor partition, Tensor counted, Tensor dLoss, Tensor dLogits) => throw NoKernel("CrossEntropy");
}
