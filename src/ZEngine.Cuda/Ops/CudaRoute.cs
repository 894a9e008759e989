namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override void RouteForward(RouteInputs x, Routing routing) => throw NoKernel("Route");

    internal override void RouteBackward(RouteInputs x, Routing routing, Tensor? dWeights, Tensor? dAuxLoss, Tensor? dZLoss, Tensor dLogits) => throw NoKernel("Route");
}
