namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override void LayerNormForward(LayerNormInputs x, Tensor y, Tensor mean, Tensor rstd) => throw NoKernel("LayerNorm");

    internal override void LayerNormBackward(LayerNormInputs x, Tensor mean, Tensor rstd, Tensor dy, LayerNormInputs d) => throw NoKernel("LayerNorm");
}
