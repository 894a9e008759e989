namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override void ReduceForward(Reduction reduction, Tensor x, long outer, long count, long inner, Tensor y) => throw NoKernel("Reduce");

    internal override void ReduceBackward(Reduction reduction, Tensor? x, Tensor dy, long outer, long count, long inner, Tensor dx) => throw NoKernel("Reduce");
}
