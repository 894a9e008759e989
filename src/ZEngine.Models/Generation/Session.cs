namespace ZEngine.Models;

/// <summary>Sequences that a model reads and writes token by token: owns their convolution, scan and key-value state.</summary>
/// <remarks>Not thread-safe; several sessions of one model may run side by side on different threads.</remarks>
public sealed class Session : IDisposable
{
    private readonly LanguageModel _model;
    private readonly ModelState _state;
    private readonly int _batch;
    private readonly Communicator _world;
    private float[] _logits = [];
    private bool _isDisposed, _isInPlace;

    internal Session(LanguageModel model, int batch, long maxLength, KeyValueSharding? sharding, DType? keyValueType, DType? scanStateType)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(batch, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(maxLength, 1);
        sharding?.RequireValid();
        if (keyValueType is not (null or DType.Int8)) throw new ArgumentException($"Session: keyValueType must be Int8, or null for the type of the activations, got {keyValueType}.");
        if (scanStateType is not (null or DType.Float32 or DType.BFloat16 or DType.Float16)) throw new ArgumentException($"Session: scanStateType must be Float32, BFloat16 or Float16, got {scanStateType}.");
        (_model, _batch, MaxLength, _world) = (model, batch, maxLength, sharding?.World ?? Communicator.Single);
        if (_world.Size == 1) sharding = null;
        using TensorScope scope = TensorScope.Enter();         // a state that does not fit takes those before it along
        LayerState[] layers = model.NewLayerStates(batch, maxLength);
        foreach (LayerState layer in layers) layer.Allocate(sharding, keyValueType, scanStateType);
        foreach (LayerState layer in layers) layer.Own();
        _state = new ModelState(layers);
    }

    /// <summary>Tokens that fit.</summary>
    public long MaxLength { get; }

    /// <summary>Tokens taken in so far.</summary>
    public long Length => _state.Length;

    /// <summary>Takes in tokens of a single sequence and returns the logits of the one to come, valid until the next call.</summary>
    /// <exception cref="InvalidOperationException">The tokens do not fit.</exception>
    public ReadOnlySpan<float> Append(ReadOnlySpan<int> tokens)
    {
        if (_batch != 1) throw new InvalidOperationException($"Session.Append: this session has a batch of {_batch}; give the tokens as a tensor [{_batch}, L].");
        using TensorScope scope = TensorScope.Enter();
        Tensor logits = Append(Tensor.From(tokens, [1, tokens.Length], _model.Device));
        if (_logits.Length == 0) _logits = new float[_model.VocabularySize];
        logits.To(DType.Float32).CopyTo(_logits.AsSpan());
        return _logits;
    }

    /// <summary>Takes in tokens [B, L] and returns the logits [B, V] of the ones to come.</summary>
    /// <exception cref="InvalidOperationException">The tokens do not fit.</exception>
    public Tensor Append(Tensor tokens)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        ArgumentNullException.ThrowIfNull(tokens);
        if (tokens.Rank != 2 || tokens.Shape[0] != _batch) throw new ArgumentException($"Session.Append: tokens must be [{_batch}, L], got {tokens}.");
        if (_isInPlace && tokens.Shape[1] != 1) _state.Length = _state.Layers.Select(layer => layer.ReadLength()).FirstOrDefault(length => length is not null) ?? Length;
        if (Length + tokens.Shape[1] > MaxLength)
            throw new InvalidOperationException($"Session.Append: {Length} of {MaxLength} tokens are taken, {tokens.Shape[1]} more do not fit; open the session with a larger maxLength.");
        return _model.NextLogits(tokens, _state);
    }

    /// <summary>Takes in one token of every sequence, [B, 1], and returns the logits [B, V] of the ones to come. From the first step on all state stays in place.</summary>
    /// <remarks>
    /// Nothing is copied from or to the host, so that a CUDA graph which captured a step decodes one more token with every launch: write the tokens to the same tensor,
    /// launch, read the logits. <see cref="Length"/> counts calls, not launches; a launch beyond <see cref="MaxLength"/> of a model with attention fails when the host next waits.
    /// </remarks>
    /// <exception cref="NotSupportedException">Keys and values lie on several ranks, or the model's rotation depends on the length within <see cref="MaxLength"/>.</exception>
    public Tensor Step(Tensor tokens)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        ArgumentNullException.ThrowIfNull(tokens);
        if (tokens.Rank != 2 || tokens.Shape[1] != 1) throw new ArgumentException($"Session.Step: tokens must be [{_batch}, 1], got {tokens}.");
        foreach (LayerState layer in _state.Layers) layer.StayInPlace();
        _isInPlace = true;
        return Append(tokens);
    }

    /// <summary>Takes in a prompt and yields the tokens that follow it, until a stop token or the limit.</summary>
    /// <param name="prompt">At least one token.</param>
    /// <param name="sampling">How tokens are chosen.</param>
    /// <param name="cancellationToken">Ends the text between two tokens.</param>
    /// <exception cref="NotFiniteNumberException">Logits are NaN or infinite: see <see cref="LanguageModel.FindNonFinite"/>.</exception>
    public IEnumerable<int> Generate(int[] prompt, SamplingOptions sampling, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        ArgumentNullException.ThrowIfNull(sampling);
        if (prompt.Length == 0) throw new ArgumentException("Session.Generate: the prompt is empty; give at least one token.");
        var sampler = new Sampler(sampling, _model.VocabularySize);
        sampler.Remember(prompt);
        return Tokens(prompt, sampler, sampling, cancellationToken);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_isDisposed) return;
        _isDisposed = true;
        _state.Dispose();
    }

    private IEnumerable<int> Tokens(int[] prompt, Sampler sampler, SamplingOptions sampling, CancellationToken cancellationToken)
    {
        if (sampling.MaxNewTokens == 0) yield break;
        (int token, bool isCancelled) = Agree(sampler.Next(Append(prompt.AsSpan())), cancellationToken);
        for (int i = 1; !sampling.StopTokens.Contains(token); i++)
        {
            yield return token;
            if (i >= sampling.MaxNewTokens || isCancelled || _world.Size == 1 && cancellationToken.IsCancellationRequested) yield break;
            (token, isCancelled) = Agree(sampler.Next(Append([token])), cancellationToken);
        }
    }

    /// <summary>Ranks go on with one token, and stop together.</summary>
    private (int Token, bool IsCancelled) Agree(int token, CancellationToken cancellationToken)
    {
        if (_world.Size == 1) return (token, false);
        int[][] all = _world.Gather<int>([token, cancellationToken.IsCancellationRequested ? 1 : 0]);
        if (all[0].Any(other => other != all[0][0])) throw new InvalidOperationException($"Session: the ranks chose different tokens ({string.Join(", ", all[0])}): their models, prompts or machines differ.");
        return (token, all[1].Any(isCancelled => isCancelled != 0));
    }
}
