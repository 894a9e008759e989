namespace ZEngine.Training;

/// <summary>While open, the model computes without the adapter's changes.</summary>
public readonly ref struct LoraPause : IDisposable
{
    private readonly LoraAdapter _adapter;

    internal LoraPause(LoraAdapter adapter) => _adapter = adapter;

    /// <summary>The changes count again.</summary>
    public void Dispose() => _adapter.Resume();
}
