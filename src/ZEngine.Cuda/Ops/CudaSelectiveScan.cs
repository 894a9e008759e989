namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override long SelectiveScanStretch => throw NoKernel("SelectiveScan");

    internal override void SelectiveScanForward(SelectiveScanInputs x, Tensor y, Tensor finalState, Tensor? states) => throw NoKernel("SelectiveScan");

    internal override void SelectiveScanBackward(SelectiveScanInputs x, Tensor states, Tensor dy, Tensor? dFinalState, SelectiveScanInputs d) => throw NoKernel("SelectiveScan");
}
