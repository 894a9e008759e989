namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override void Rope(RopeInputs x, Tensor y) => throw NoKernel("Rope");
}
