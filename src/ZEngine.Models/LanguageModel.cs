namespace ZEngine.Models;

/// <summary>A model that turns tokens into logits over the next token.</summary>
/// <remarks>
/// Made in one of three ways: <see cref="Load"/> from a Hugging Face folder; a constructor with a device and a seed, for a fresh
/// model; or a constructor with a configuration alone, which declares the structure without memory, to count and to plan.
/// </remarks>
public abstract class LanguageModel : Module
{
    private readonly List<SafetensorsTensor> _ignored = [];         // of no use to the model; written again as they were
    private WeightLayout? _layout;

    /// <summary>Declares a model; the constructor of a derived class declares its parameters.</summary>
    protected LanguageModel(ModelConfigFile config) => Config = config;

    /// <summary>The configuration, as it is read from and written to <c>config.json</c>.</summary>
    public ModelConfigFile Config { get; }

    /// <summary>Number of token classes V.</summary>
    public abstract int VocabularySize { get; }

    /// <summary>The parts of the model with their parameters, arithmetic and state, for one token.</summary>
    public abstract IReadOnlyList<ModelPart> Parts { get; }

    /// <summary>The head's weight [V, D]; the embedding where they are tied.</summary>
    protected abstract Parameter HeadWeight { get; }

    /// <summary>Where the parameters live.</summary>
    public Device Device => HeadWeight.Value.Device;

    /// <summary>The type in which the layers hand on their results.</summary>
    public DType ActivationType => Device.ActivationType(HeadWeight.Value.DType);

    /// <summary>Builds the structure of the model that a configuration describes, without memory.</summary>
    /// <exception cref="InvalidDataException">The configuration names no model of the zoo, or is not valid for it.</exception>
    public static LanguageModel Create(ModelConfigFile config) => Zoo.Create(config);

    /// <summary>Opens a model: <c>config.json</c> and <c>model.safetensors</c>, or its shards. On the CPU weights are mapped, not read.</summary>
    /// <param name="folder">The model's folder.</param>
    /// <param name="device">Where it shall compute.</param>
    /// <param name="dtype">Type of the matrices; null keeps what the file has. All other parameters are Float32.</param>
    /// <param name="isWritable">Whether the weights may be trained; a read-only mapping needs no memory of its own, so it may exceed the machine's.</param>
    /// <exception cref="InvalidDataException">A file is damaged, or tensors are missing, unknown or of the wrong shape.</exception>
    public static LanguageModel Load(string folder, Device device, DType? dtype = null, bool isWritable = true)
    {
        LanguageModel model = Create(ModelConfigFile.Open(Path.Combine(folder, "config.json")));
        try
        {
            WeightLoader.Load(model, folder, device, dtype, isWritable, model.CanonicalName, [.. model.StoredParts], model._ignored, out model._layout);
            return model;
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    /// <summary>Writes the model as a Hugging Face folder. A model that was loaded and not changed gives the same bytes.</summary>
    /// <param name="folder">Created where missing.</param>
    public virtual void Save(string folder) => Write(folder, StoredTensors());

    /// <summary>Copies what <see cref="Save"/> writes as it is now, so that the model may change before it is written.</summary>
    /// <param name="copies">Keeps the copies; must live until the result was called.</param>
    /// <returns>Writes the folder; may be called on any thread.</returns>
    public virtual Action<string> PrepareSave(TensorCopies copies)
    {
        ArgumentNullException.ThrowIfNull(copies);
        SafetensorsTensor[] tensors = [.. StoredTensors().Select(copies.Copy)];
        return folder => Write(folder, tensors);
    }

    private List<SafetensorsTensor> StoredTensors()
    {
        Dictionary<string, StoredPart> parts = StoredParts.ToDictionary(part => part.Name);
        if (_layout is null)
        {
            HashSet<Parameter> composed = [.. parts.Values.Select(part => part.Parameter)];
            return
            [
                .. Parameters.Where(parameter => !composed.Contains(parameter)).Select(parameter => WeightLoader.Stored(parameter.Name, parameter, null)),
                .. parts.Values.Select(WeightLoader.Stored),
            ];
        }
        Dictionary<string, Parameter> parameters = Parameters.ToDictionary(parameter => parameter.Name);
        List<SafetensorsTensor> tensors = [.. _ignored];
        foreach (SafetensorsEntry entry in _layout.Shards.SelectMany(shard => shard.Entries))
            if (parts.TryGetValue(entry.Name, out StoredPart? part)) tensors.Add(WeightLoader.Stored(part));
            else if (CanonicalName(entry.Name) is { } name) tensors.Add(WeightLoader.Stored(entry.Name, parameters[name], entry.DType));
        return tensors;
    }

    private void Write(string folder, IReadOnlyCollection<SafetensorsTensor> tensors)
    {
        Directory.CreateDirectory(folder);
        if (_layout is null) WeightFiles.Save(folder, tensors);
        else WeightFiles.Save(folder, tensors, _layout);
        Config.Save(Path.Combine(folder, "config.json"));
    }

    /// <summary>The parameters that hold a NaN or an infinity: a damaged file, or a training run gone wrong. Reads every weight once.</summary>
    /// <remarks>Loading does not look, because it maps the weights and reads none.</remarks>
    public IReadOnlyList<string> FindNonFinite()
    {
        var names = new List<string>();
        foreach (Parameter parameter in Parameters)
        {
            using var check = new FiniteCheck(parameter.Value.DType);
            parameter.Value.WriteTo(check);
            if (!check.AllFinite) names.Add(parameter.Name);
        }
        return names;
    }

    /// <summary>The logits of every position.</summary>
    /// <param name="tokens">[B, L], Int32 or Int64.</param>
    /// <param name="layout">Boundaries of packed sequences, or null.</param>
    /// <returns>[B, L, V], Float32.</returns>
    public Tensor Forward(Tensor tokens, SequenceLayout? layout = null)
    {
        RequireTokens(tokens);
        using TensorScope scope = TensorScope.Enter();
        return scope.Keep(Head(Hidden(tokens, null, layout)));
    }

    /// <summary>The logits of every position, and what the model itself adds to a training loss: the load-balancing loss of its routers, weighted; null where it has none.</summary>
    /// <param name="tokens">[B, L], Int32 or Int64.</param>
    /// <param name="layout">Boundaries of packed sequences, or null.</param>
    public virtual (Tensor Logits, Tensor? AuxiliaryLoss) ForwardWithLoss(Tensor tokens, SequenceLayout? layout = null) => (Forward(tokens, layout), null);

    /// <summary>Opens a session: the state in which the model reads and writes text token by token.</summary>
    /// <param name="batch">Sequences side by side.</param>
    /// <param name="maxLength">Tokens that fit, prompt and answer together.</param>
    /// <param name="sharding">How ranks part keys and values among them; null for one rank.</param>
    /// <param name="keyValueType">
    /// Int8 keeps keys and values in bytes, with a scale for each row of a head: an element is off by at most 1/254 of its row's largest (see <see cref="DecodeCache"/>).
    /// Null keeps them as they are.
    /// </param>
    /// <param name="scanStateType">
    /// BFloat16 or Float16 keeps the states of Mamba-2 layers in 16 bits, which halves what a step of many sequences reads and writes, and rounds them at every step (see
    /// <see cref="StateCache"/>). Null, or Float32, keeps them exactly. Selective scans, as in Mamba, know Float32 alone.
    /// </param>
    /// <exception cref="NotSupportedException">A layer cannot keep its state in that type.</exception>
    public Session NewSession(int batch = 1, long maxLength = 4096, KeyValueSharding? sharding = null, DType? keyValueType = null, DType? scanStateType = null) => new(this, batch, maxLength, sharding, keyValueType, scanStateType);

    /// <summary>The last hidden states, normalised: what the head reads.</summary>
    /// <param name="tokens">[B, L].</param>
    /// <param name="state">What came before, which is brought up to date; or null for a beginning that is not remembered.</param>
    /// <param name="layout">Boundaries of packed sequences, or null.</param>
    /// <returns>[B, L, D].</returns>
    protected abstract Tensor Hidden(Tensor tokens, ModelState? state, SequenceLayout? layout);

    /// <summary>One state per layer that has one, all empty; the order is the model's own.</summary>
    protected internal abstract LayerState[] NewLayerStates(int batch, long maxLength);

    /// <summary>The parameter that a tensor of a file is a copy of, by name; the name itself where it is none; null where the tensor is to be ignored.</summary>
    protected virtual string? CanonicalName(string name) => name.EndsWith("rotary_emb.inv_freq", StringComparison.Ordinal) ? null : name;

    /// <summary>Parameters that files hold in parts, part by part.</summary>
    protected virtual IEnumerable<StoredPart> StoredParts => [];

    /// <summary>Logits of the last position of each sequence, [B, V], after the state has taken in the tokens.</summary>
    internal Tensor NextLogits(Tensor tokens, ModelState state)
    {
        RequireTokens(tokens);
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        Tensor hidden = Hidden(tokens, state, null);
        state.Length += tokens.Shape[1];
        return scope.Keep(Head(hidden.Slice(1, hidden.Shape[1] - 1, 1)).Reshape(tokens.Shape[0], VocabularySize));
    }

    private protected Tensor Head(Tensor hidden) => HeadWeight.Project(hidden);

    /// <summary>Rejects tokens that the model cannot take before any state changes.</summary>
    private protected void RequireTokens(Tensor tokens)
    {
        ArgumentNullException.ThrowIfNull(tokens);
        if (tokens.IsDisposed) throw new ObjectDisposedException(nameof(tokens), $"LanguageModel: tokens {tokens}, by hand or with the scope that owned it.");
        if (tokens.Rank != 2 || tokens.Shape[1] == 0) throw new ArgumentException($"LanguageModel: tokens must be [B, L] with at least one step, got {tokens}.");
        if (tokens.DType is not (DType.Int32 or DType.Int64)) throw new ArgumentException($"LanguageModel: tokens must be Int32 or Int64, got {tokens}.");
        if (tokens.Device != Device) throw new ArgumentException($"LanguageModel: tokens must be on the model's device {Device}, got {tokens}.");
    }
}
