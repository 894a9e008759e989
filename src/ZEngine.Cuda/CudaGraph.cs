using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>Work of a device that was captured once and runs again with one launch.</summary>
/// <remarks>Tensors made inside the captured action lie in memory of the graph: each launch writes them anew. Dispose the graph after them.</remarks>
public sealed unsafe class CudaGraph : IDisposable
{
    private readonly CudaDevice _device;
    private readonly DevicePool.Arena _arena;
    private readonly List<nint> _tables = [];
    private CudaGraphExecHandle _executable;
    private bool _isDisposed;

    internal CudaGraph(CudaDevice device, DevicePool.Arena arena) => (_device, _arena) = (device, arena);

    /// <summary>Runs the captured work in stream order.</summary>
    public void Launch()
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        _device.Enter().LaunchGraph(_executable, _device.Stream);
        _device.Launched("a captured graph");
    }

    /// <summary>Gives the graph's memory back; waits for the device.</summary>
    public void Dispose()
    {
        if (_isDisposed) return;
        _isDisposed = true;
        if (_device.IsDisposed) return;
        CudaDriver driver = _device.Enter();
        if (_executable.Value != 0)
        {
            driver.StreamSynchronize(_device.Stream);
            driver.DestroyGraphExec(_executable);
        }
        foreach (nint table in _tables) driver.FreeHost(table);
        _device.Release(_arena);
    }

    internal void Record(Action action)
    {
        CudaDriver driver = _device.Enter();
        driver.BeginCapture(_device.Stream);
        CudaGraphHandle graph = default;
        try
        {
            action();
        }
        finally
        {
            graph = driver.EndCapture(_device.Stream);         // also after an error: the stream must not stay in capture
        }
        try
        {
            _executable = driver.InstantiateGraph(graph);
        }
        finally
        {
            driver.DestroyGraph(graph);
        }
    }

    internal void UploadTable(ReadOnlySpan<byte> table, nint destination)
    {
        CudaDriver driver = _device.Enter();
        nint copy = driver.AllocateHost((nuint)table.Length);
        _tables.Add(copy);
        table.CopyTo(new Span<byte>((void*)copy, table.Length));
        driver.CopyToDeviceAsync(new DevicePointer((ulong)destination), copy, (ulong)table.Length, _device.Stream);
    }
}
