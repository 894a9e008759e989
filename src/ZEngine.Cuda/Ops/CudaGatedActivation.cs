namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override void GatedActivationForward(Pointwise function, Tensor gate, Tensor up, Tensor y) => throw NoKernel("GatedActivation");

    internal override void GatedActivationBackward(Pointwise function, Tensor gate, Tensor up, Tensor dy, Tensor dGate, Tensor dUp) => throw NoKernel("GatedActivation");
}
