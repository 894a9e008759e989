namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override void CausalConv1dForward(CausalConv1dInputs x, Tensor y, Tensor finalState) => throw NoKernel("CausalConv1d");

    internal override void CausalConv1dBackward(CausalConv1dInputs x, Tensor dy, Tensor? dFinalState, CausalConv1dInputs d) => throw NoKernel("CausalConv1d");
}
