namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override void MatMul(MatMulInputs x, Tensor y, bool isAdding) => throw NoKernel("MatMul");
}
