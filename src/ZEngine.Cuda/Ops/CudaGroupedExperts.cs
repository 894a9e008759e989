namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override void GroupedExpertsForward(GroupedExpertsInputs x, Tensor hidden, Tensor y) => throw NoKernel("GroupedExperts");

    internal override void GroupedExpertsBackward(GroupedExpertsInputs x, Tensor hidden, Tensor dy, Tensor dX, Tensor dWeights, Tensor dUp, Tensor dDown) => throw NoKernel("GroupedExperts");
}
