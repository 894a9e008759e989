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
        int perThread = isWide ? WideElements(y.DType) : 1;
        CudaKernel kernel = Kernel(GatedActivationFile, $"gated_activation_forward<{y.DType}>");
        foreach ((long first, long rows) in CountedRows("GatedActivation", y.Count, width, perThread))
            LaunchElements(kernel, rows * width, perThread, new GatedActivationArgs
            {
                Gate = Row(gate, first), Up = Row(up, first), Y = Row(y, first), R = rows, D = width, GateStride = gate.RowStride(), UpStride = up.RowStride(),
                Function = (int)function, IsWide = isWide ? 1 : 0,
            });
    }

    internal override void GatedActivationBackward(Pointwise function, Tensor gate, Tensor up, Tensor dy, Tensor dGate, Tensor dUp)
    {
        long width = dy.Shape[^1];
        bool isWide = IsWide(gate, width) && IsWide(up, width) && IsWide(dy, width) && IsWide(dGate, width) && IsWide(dUp, width);
        int perThread = isWide ? WideElements(dy.DType) : 1;
        CudaKernel kernel = Kernel(GatedActivationFile, $"gated_activation_backward<{dy.DType}>");
        foreach ((long first, long rows) in CountedRows("GatedActivation", dy.Count, width, perThread))
            LaunchElements(kernel, rows * width, perThread, new GatedActivationBackwardArgs
            {
                Gate = Row(gate, first), Up = Row(up, first), Dy = Row(dy, first), Dgate = Row(dGate, first), Dup = Row(dUp, first), R = rows, D = width,
                GateStride = gate.RowStride(), UpStride = up.RowStride(), DgateStride = dGate.RowStride(), DupStride = dUp.RowStride(),
                Function = (int)function, IsWide = isWide ? 1 : 0,
            });
    }

    private static ulong Row(Tensor tensor, long row) => Pointer(tensor) + (ulong)(row * tensor.RowStride() * tensor.DType.Size);

    /// <summary>Rows for each launch of a kernel that counts its accesses in 32 bits: all of them, but for tensors of many gigabytes.</summary>
    internal static IEnumerable<(long First, long Count)> CountedRows(string op, long count, long width, int perThread, int most = int.MaxValue)
    {
        if (count == 0) yield break;
        long rows = count / width, ofLaunch = most / (width / perThread);
        if (ofLaunch == 0) throw new NotSupportedException($"{op}: a row has {width:N0} elements, the kernels take at most {(long)most * perThread:N0}.");
        for (long first = 0; first < rows; first += ofLaunch) yield return (first, Math.Min(ofLaunch, rows - first));
    }
}
