using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>Trainable changes of a frozen model: low-rank for matrices and convolutions, full for vectors.</summary>
/// <remarks>
/// A matrix W [out, in] becomes W + α/R·Up·Down with Down [R, in] and Up [out, R]; a convolution [C, 1, K] likewise with Down [R, K] and
/// Up [C, R]; a vector gets a change of its own shape. Up and the changes of vectors begin at zero, so the model begins as it was. The
/// changes are inputs of the model's ops, not wrappers around its layers, so a fused kernel cannot pass them by.
/// Owns its parameters, which are Float32; the model stays the caller's and must outlive the adapter's use.
/// Hu et al. 2021, arXiv:2106.09685, section 4.
/// </remarks>
public sealed class LoraAdapter : Module
{
    private readonly List<LoraChange> _changes = [];
    private readonly bool[] _wasTrainable;
    private int _pauses;

    private LoraAdapter(LanguageModel model, LoraOptions options, IEnumerable<Parameter> covered)
    {
        (Model, Options) = (model, options);
        _wasTrainable = [.. model.Parameters.Select(parameter => parameter.IsTrainable)];
        foreach (Parameter parameter in covered) _changes.Add(Declare(parameter));
    }

    /// <summary>The model that is changed.</summary>
    public LanguageModel Model { get; }

    /// <summary>Rank, scale and targets.</summary>
    public LoraOptions Options { get; }

    /// <summary>Whether the model computes with the changes: from the beginning to <see cref="Merge"/>, <see cref="Detach"/> or disposal.</summary>
    public bool IsAttached { get; private set; }

    /// <summary>Whether no parameter of the model itself is trainable.</summary>
    public bool IsBaseFrozen => Model.Parameters.All(parameter => !parameter.IsTrainable);

    /// <summary>How much of the model is covered.</summary>
    public LoraCoverage Coverage => new(_changes.Count, Model.Parameters.Count, ParameterCount, Model.ParameterCount);

    internal IReadOnlyList<LoraChange> Changes => _changes;

    /// <summary>Freezes a model and puts changes on its parameters that the targets name.</summary>
    /// <param name="model">Initialised or loaded.</param>
    /// <param name="options">Rank, scale and targets.</param>
    /// <param name="seed">Decides the initial values, with the parameters' names.</param>
    /// <exception cref="ArgumentException">A target names nothing, or something that has no change; one line that lists what there is.</exception>
    /// <exception cref="InvalidOperationException">The model has an adapter already, or no values yet.</exception>
    public static LoraAdapter Attach(LanguageModel model, LoraOptions options, ulong seed)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(options);
        options.RequireValid();
        var adapter = new LoraAdapter(model, options, LoraTargets.Find(model, options.Targets));
        adapter.Begin(seed);
        return adapter;
    }

    /// <summary>Freezes a model and puts the changes of a folder on it.</summary>
    /// <param name="folder">Holds <c>adapter_config.json</c> and <c>adapter_model.safetensors</c>, from <see cref="Save"/> or from PEFT (LoRA of linear layers).</param>
    /// <param name="model">Initialised or loaded.</param>
    /// <exception cref="InvalidDataException">The files are damaged, of another model or of a variant that is not supported; one line that says what.</exception>
    public static LoraAdapter Load(string folder, LanguageModel model)
    {
        ArgumentNullException.ThrowIfNull(model);
        LoraOptions options = AdapterFiles.ReadOptions(folder);
        var adapter = new LoraAdapter(model, options, AdapterFiles.Covered(folder, model));
        adapter.Begin(0);
        try
        {
            AdapterFiles.ReadValues(folder, adapter);
            return adapter;
        }
        catch
        {
            adapter.Dispose();
            throw;
        }
    }

    /// <summary>Writes <c>adapter_config.json</c> and <c>adapter_model.safetensors</c>; the model itself is not written.</summary>
    /// <param name="folder">Created where missing.</param>
    /// <remarks>
    /// Changes of matrices have PEFT's names, <c>base_model.model.&lt;name&gt;.lora_A.weight</c> (Down) and <c>.lora_B.weight</c> (Up), with the
    /// parameter's name less <c>.weight</c>. What PEFT has no name for is <c>.lora_kernel_A</c> and <c>.lora_kernel_B</c> for a convolution, and
    /// <c>.lora_delta</c> for a vector.
    /// </remarks>
    public void Save(string folder) => AdapterFiles.Write(folder, this, [.. AdapterFiles.Tensors(this)]);

    /// <summary>Adds the changes to the model's values for good, in Float32 before the rounding to the value's type, and removes them.</summary>
    /// <remarks>The model's weight files are not touched. An optimizer that was made before still holds the old values.</remarks>
    public void Merge()
    {
        RequireAttached(nameof(Merge));
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        foreach (LoraChange change in _changes)
        {
            (Tensor value, LowRankUpdate update) = (change.Parameter.Value, change.Update);
            Tensor sum = update.Down is null ? update.Up.Value : Ops.MatMul(update.Up.Value, update.Down.Value).Reshape(value.Shape);
            change.Parameter.Materialize(Ops.Add(value.To(DType.Float32), Ops.Scale(sum, update.Scale)).To(value.DType));
        }
        Remove();
    }

    /// <summary>Removes the changes: the model computes as before it had them, with the same bits, and is as trainable as it was.</summary>
    public void Detach()
    {
        RequireAttached(nameof(Detach));
        Remove();
    }

    /// <summary>Lets the model compute without the changes until the result is disposed, for example as the frozen reference of a preference loss.</summary>
    public LoraPause Pause()
    {
        RequireAttached(nameof(Pause));
        if (_pauses++ == 0)
            foreach (LoraChange change in _changes) change.Parameter.Update = null;
        return new LoraPause(this);
    }

    /// <inheritdoc/>
    public override string ToString() => $"LoRA of rank {Options.Rank} and alpha {Options.Alpha}: {Coverage}";

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing && IsAttached) Remove();
        base.Dispose(disposing);
    }

    internal void Resume()
    {
        if (--_pauses > 0 || !IsAttached) return;
        foreach (LoraChange change in _changes) change.Parameter.Update = change.Update;
    }

    private LoraChange Declare(Parameter parameter)
    {
        (string name, LoraKind kind) = (LoraTargets.Stem(parameter.Name), LoraTargets.KindOf(parameter));
        if (kind == LoraKind.Vector)
            return new LoraChange(parameter, new LowRankUpdate(null, Register(name + AdapterFiles.VectorSuffix, new Parameter(parameter.Shape, Initializer.Zeros)), 1));
        (long rows, long columns) = (parameter.Shape[0], parameter.Shape[^1]);
        float range = 1 / MathF.Sqrt(columns);
        (string downSuffix, string upSuffix) = kind == LoraKind.Kernel ? (AdapterFiles.KernelDownSuffix, AdapterFiles.KernelUpSuffix) : (AdapterFiles.DownSuffix, AdapterFiles.UpSuffix);
        Parameter down = Register(name + downSuffix, new Parameter([Options.Rank, columns], Initializer.Uniform(-range, range), isDecayed: true));
        Parameter up = Register(name + upSuffix, new Parameter([rows, Options.Rank], Initializer.Zeros, isDecayed: true));
        return new LoraChange(parameter, new LowRankUpdate(down, up, Options.Alpha / Options.Rank));
    }

    private void Begin(ulong seed)
    {
        foreach (Parameter parameter in Model.Parameters)
            if (parameter.Update is not null) throw new InvalidOperationException($"LoraAdapter: {parameter} has a low-rank update already; merge or detach the other adapter first.");
        Initialize(Model.Device, seed);
        foreach (Parameter parameter in Model.Parameters) parameter.IsTrainable = false;
        foreach (LoraChange change in _changes) change.Parameter.Update = change.Update;
        IsAttached = true;
    }

    private void Remove()
    {
        foreach (LoraChange change in _changes) change.Parameter.Update = null;
        for (int i = 0; i < _wasTrainable.Length; i++) Model.Parameters[i].IsTrainable = _wasTrainable[i];
        IsAttached = false;
    }

    private void RequireAttached(string call)
    {
        if (!IsAttached) throw new InvalidOperationException($"LoraAdapter.{call}: the adapter was merged, detached or disposed.");
        if (_pauses > 0 && call != nameof(Pause)) throw new InvalidOperationException($"LoraAdapter.{call}: the adapter is paused; dispose the pause first.");
    }
}
