namespace ZEngine.Models;

/// <summary>A model that turns tokens into logits over the next token.</summary>
public abstract class LanguageModel : Module
{
    /// <summary>Number of token classes V.</summary>
    public abstract int VocabularySize { get; }

    /// <summary>The logits of every position.</summary>
    /// <param name="tokens">[B, L], Int32 or Int64.</param>
    /// <param name="layout">Boundaries of packed sequences, or null.</param>
    /// <returns>[B, L, V], Float32.</returns>
    public abstract Tensor Forward(Tensor tokens, SequenceLayout? layout = null);

    /// <summary>Writes the model as a Hugging Face folder: <c>config.json</c> and <c>model.safetensors</c>.</summary>
    public abstract void Save(string folder);
}
