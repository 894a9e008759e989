using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    /// <summary>The boundaries of packed sequences on the device, Int64 [sequences + 1]; null where there are none.</summary>
    private Tensor? CuSeqlens(SequenceLayout? layout, Device on)
    {
        if (layout is null) return null;
        Tensor table = TensorScope.Release(Tensor.Empty([layout.CuSeqlens.Length], DType.Int64, on));
        device.UploadTable(MemoryMarshal.AsBytes(layout.CuSeqlens), table.Address);
        return table;
    }
}
