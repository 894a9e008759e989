namespace ZEngine.Models;

/// <summary>What a model remembers of the sequences of a session.</summary>
public sealed class ModelState : IDisposable
{
    internal ModelState(IReadOnlyList<LayerState> layers) => Layers = layers;

    /// <summary>One per layer that has a state, in the model's own order.</summary>
    public IReadOnlyList<LayerState> Layers { get; }

    /// <summary>Tokens taken in so far.</summary>
    public long Length { get; internal set; }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (LayerState layer in Layers) layer.Dispose();
    }
}
