using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string GatedActivationFile = "GatedActivation.cu";

    /// <summary>Mirrors GatedActivationArgs in kernels/GatedActivation.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct GatedActivationArgs
    {
        public ulong Gate, Up, Y;
        public long R, D, GateStride, UpStride;
        public int Function, IsWide;
    }

    /// <summary>Mirrors GatedActivationBackwardArgs in kernels/GatedActivation.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct GatedActivationBackwardArgs
    {
        public ulong Gate, Up, Dy, Dgate, Dup;
        public long R, D, GateStride, UpStride, DgateStride, DupStride;
        public int Function, IsWide;
    }

    internal override void GatedActivationForward(Pointwise function, Tensor gate, Tensor up, Tensor y)
    {
        long width = y.Shape[^1];
        bool isWide = IsWide(gate, width) && IsWide(up, width) && IsWide(y, width);
        LaunchElements(Kernel(GatedActivationFile, $"gated_activation_forward<{y.DType}>"), y.Count, isWide ? WideElements(y.DType) : 1, new GatedActivationArgs
        {
            Gate = Pointer(gate), Up = Pointer(up), Y = Pointer(y), R = y.Count / Math.Max(1, width), D = width, GateStride = gate.RowStride(), UpStride = up.RowStride(),
            Function = (int)function, IsWide = isWide ? 1 : 0,
        });
    }

    internal override void GatedActivationBackward(Pointwise function, Tensor gate, Tensor up, Tensor dy, Tensor dGate, Tensor dUp)
    {
        long width = dy.Shape[^1];
        bool isWide = IsWide(gate, width) && IsWide(up, width) && IsWide(dy, width) && IsWide(dGate, width) && IsWide(dUp, width);
        LaunchElements(Kernel(GatedActivationFile, $"gated_activation_backward<{dy.DType}>"), dy.Count, isWide ? WideElements(dy.DType) : 1, new GatedActivationBackwardArgs
        {
            Gate = Pointer(gate), Up = Pointer(up), Dy = Pointer(dy), Dgate = Pointer(dGate), Dup = Pointer(dUp), R = dy.Count / Math.Max(1, width), D = width,
            GateStride = gate.RowStride(), UpStride = up.RowStride(), DgateStride = dGate.RowStride(), DupStride = dUp.RowStride(),
            Function = (int)function, IsWide = isWide ? 1 : 0,
        });
    }
}
