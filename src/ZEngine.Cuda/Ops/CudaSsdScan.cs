namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override long SsdChunkLength(long length, long headDimension, long states) => throw NoKernel("SsdScan");

    internal override void SsdScanForward(SsdScanInputs x, Tensor y, Tensor finalState, Tensor? states, Tensor? ungated) => throw NoKernel("SsdScan");

    internal override void SsdScanBackward(SsdScanInputs x, Tensor states, Tensor? ungated, Tensor dy, Tensor? dFinalState, SsdScanInputs d) => throw NoKernel("SsdScan");
}
