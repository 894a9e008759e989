namespace ZEngine.Models;

/// <summary>What a model remembers of the sequences of a session.</summary>
internal sealed class ModelState(LayerState[] layers) : IDisposable
{
    /// <summary>One per layer that has a state, in the model's own order.</summary>
    public LayerState[] Layers { get; } = layers;

    /// <summary>Tokens taken in so far.</summary>
    public long Length { get; set; }

    public void Dispose()
    {
        foreach (LayerState layer in Layers) layer.Dispose();
    }
}
