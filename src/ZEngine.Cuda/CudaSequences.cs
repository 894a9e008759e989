using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    /// <summary>The boundaries of packed sequences where kernels read them: 0, then the end of each; null without a layout. The caller disposes it after the launch.</summary>
    private Tensor? UploadSequences(SequenceLayout? layout)
    {
        if (layout is null) return null;
        Tensor table = Tensor.Empty([layout.Count + 1], DType.Int64, device);
        device.UploadTable(MemoryMarshal.AsBytes(layout.CuSeqlens), table.Address);
        return table;
    }
}
