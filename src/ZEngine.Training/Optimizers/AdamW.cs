using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>Adam with decoupled weight decay over the trainable parameters of a model.</summary>
/// <remarks>
/// Owns two moments per parameter, and a Float32 master copy of every parameter whose value is a 16-bit type; their memory comes
/// with the first step or with <see cref="Load(string)"/>. Weight decay applies where <see cref="Parameter.IsDecayed"/> says so.
/// Load weights before the first step: later the master copies no longer look at the values.
/// Kingma and Ba 2015, arXiv:1412.6980; Loshchilov and Hutter 2019, arXiv:1711.05101.
/// </remarks>
public sealed class AdamW : IDisposable
{
    private const string StepName = "step", FirstSuffix = ".first_moment", SecondSuffix = ".second_moment", MasterSuffix = ".master";

    private readonly List<Parameter> _frozen = [];
    private readonly Slot[] _slots;
    private readonly Parameter[] _trainable;
    private readonly Device _device;
    private Tensor? _step;
    private bool _isChecked, _isDisposed;

    /// <summary>An optimizer for those of the parameters that are trainable now.</summary>
    /// <param name="parameters">Usually all of a model; names must be distinct.</param>
    /// <param name="options">Hyper-parameters.</param>
    /// <exception cref="ArgumentException">A hyper-parameter is out of range, two names are equal, or nothing is trainable.</exception>
    public AdamW(IReadOnlyList<Parameter> parameters, AdamWOptions options) : this(parameters, options, null) { }

    /// <summary>As above; with <paramref name="ranges"/>, for these parts of the trainable parameters alone, whose gradients <see cref="SetGradient"/> gives.</summary>
    internal AdamW(IReadOnlyList<Parameter> parameters, AdamWOptions options, IReadOnlyList<ParameterRange>? ranges)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        RequireRange(options);
        Options = options;
        var names = new HashSet<string>(StringComparer.Ordinal);
        var slots = new List<Slot>();
        foreach (Parameter parameter in parameters)
        {
            if (!names.Add(parameter.Name)) throw new ArgumentException($"AdamW: two parameters are named '{parameter.Name}'; the state of a run is kept by name.", nameof(parameters));
            if (parameter.IsTrainable) slots.Add(new Slot(parameter, null));
            else _frozen.Add(parameter);
        }
        if (slots.Count == 0) throw new ArgumentException($"AdamW: none of the {parameters.Count} parameters is trainable.", nameof(parameters));
        (_trainable, _device) = ([.. slots.Select(slot => slot.Parameter)], slots[0].Parameter.Value.Device);
        _slots = ranges is null ? [.. slots] : [.. ranges.Select(range => new Slot(range.Parameter, range))];
    }

    /// <summary>An optimizer with hyper-parameters given one by one.</summary>
    /// <param name="parameters">Usually all of a model; names must be distinct.</param>
    /// <param name="beta1">Decay of the first moment.</param>
    /// <param name="beta2">Decay of the second moment.</param>
    /// <param name="epsilon">Added to the root of the second moment.</param>
    /// <param name="weightDecay">Decoupled decay, times the learning rate.</param>
    public AdamW(IReadOnlyList<Parameter> parameters, double beta1 = 0.9, double beta2 = 0.95, double epsilon = 1e-8, double weightDecay = 0.1)
        : this(parameters, new AdamWOptions(beta1, beta2, epsilon, weightDecay)) { }

    /// <summary>Hyper-parameters.</summary>
    public AdamWOptions Options { get; }

    /// <summary>Steps that were taken; skipped ones do not count. Waits for the device.</summary>
    public long StepCount => _step?.ToArray<long>()[0] ?? 0;

    /// <summary>Every tensor that a run needs to go on with the same bits, under a name that begins with the parameter's; empty before the first step.</summary>
    public IEnumerable<KeyValuePair<string, Tensor>> State
    {
        get
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            if (_step is null) yield break;
            yield return new(StepName, _step);
            foreach (Slot slot in _slots)
            {
                yield return new(slot.Parameter.Name + FirstSuffix + slot.Suffix, slot.First!);
                yield return new(slot.Parameter.Name + SecondSuffix + slot.Suffix, slot.Second!);
                if (slot.Master is not null) yield return new(slot.Parameter.Name + MasterSuffix + slot.Suffix, slot.Master);
            }
        }
    }

    /// <summary>Updates the parameters from their gradients, then forgets the gradients.</summary>
    /// <param name="learningRate">Of this step.</param>
    /// <param name="gradientNorm">The norm of all gradients, [] Float32; a step whose norm is not finite changes nothing. Null: no check.</param>
    /// <param name="maxNorm">Gradients are scaled down to this norm where theirs is larger; 0 for no limit. Needs <paramref name="gradientNorm"/>.</param>
    /// <remarks>A parameter without gradient is left alone, with its moments; in the first step that is an error.</remarks>
    /// <exception cref="InvalidOperationException">First step: no gradient reached a trainable parameter. Or one became trainable after the optimizer was made.</exception>
    public void Step(float learningRate, Tensor? gradientNorm = null, float maxNorm = 0)
    {
        if (!float.IsFinite(learningRate) || learningRate < 0) throw new ArgumentOutOfRangeException(nameof(learningRate), learningRate, "the learning rate must be a number from 0 up");
        Step(slots => Ops.AdamW(slots, Options, learningRate, _step!, gradientNorm, maxNorm));
    }

    /// <summary>As above with a learning rate in the device's memory, [] or [1] Float32: a captured step follows a schedule that is written there before each replay.</summary>
    public void Step(Tensor learningRate, Tensor? gradientNorm = null, float maxNorm = 0) =>
        Step(slots => Ops.AdamW(slots, Options, learningRate, _step!, gradientNorm, maxNorm));

    private void Step(Action<List<AdamWSlot>> update)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        foreach (Parameter parameter in _frozen)
            if (parameter.IsTrainable) throw new InvalidOperationException($"AdamW: {parameter} was frozen when the optimizer was made and is trainable now; make a new optimizer.");
        if (!_isChecked) RequireGradients();
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        Allocate();
        var slots = new List<AdamWSlot>(_slots.Length);
        foreach (Slot slot in _slots)
            if (slot is { Parameter.IsTrainable: true, Gradient: { } gradient })
                slots.Add(new AdamWSlot(slot.Value, slot.Master, gradient, slot.First!, slot.Second!, slot.Parameter.IsDecayed));
        update(slots);
        ClearGradients();
        _isChecked = true;
    }

    /// <summary>Forgets the gradients of all parameters of the optimizer.</summary>
    public void ClearGradients()
    {
        foreach (Slot slot in _slots)
        {
            slot.Parameter.ClearGradient();
            slot.RangeGradient?.Dispose();
            slot.RangeGradient = null;
        }
    }

    /// <summary>Gives the gradient of one of the ranges the optimizer was made for, and takes it over.</summary>
    internal void SetGradient(ParameterRange range, Tensor gradient)
    {
        Slot slot = Array.Find(_slots, slot => slot.Range == range) ?? throw new ArgumentException($"AdamW: it has no range {range.Start}..{range.Start + range.Count} of {range.Parameter}.", nameof(range));
        slot.RangeGradient?.Dispose();
        slot.RangeGradient = TensorScope.Release(gradient);
    }

    /// <summary>Writes <see cref="State"/> as a safetensors file.</summary>
    public void Save(string path) => SafetensorsWriter.Write(path, [.. StateTensors]);

    /// <summary>Copies the state as it is now.</summary>
    /// <param name="copies">Keeps the copies; must live until the result was called.</param>
    /// <returns>Writes what <see cref="Save"/> writes, on any thread.</returns>
    internal Action<string> PrepareSave(TensorCopies copies)
    {
        SafetensorsTensor[] tensors = [.. StateTensors.Select(copies.Copy)];
        return path => SafetensorsWriter.Write(path, tensors);
    }

    /// <summary>Takes the state of a file that <see cref="Save"/> wrote for the same parameters; a failure changes nothing.</summary>
    /// <exception cref="InvalidDataException">A tensor is missing, superfluous, or of another shape or type; one line that names it.</exception>
    public void Load(string path) => Load([path]);

    /// <summary>Takes the state of one file, or of the files of several ranks, however the parameters were dealt out among them.</summary>
    internal void Load(IReadOnlyList<string> paths)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        using StoredState stored = StoredState.Open(paths);
        if (stored.IsEmpty)
        {
            Release();
            _isChecked = false;
            return;
        }
        bool wasEmpty = _step is null;
        Allocate();
        try
        {
            stored.RequireAll(StepName, [.. _trainable.SelectMany(KeysOf)]);
        }
        catch (InvalidDataException)
        {
            if (wasEmpty) Release();
            throw;
        }
        stored.CopyTo(StepName, _step!, 0);
        foreach (Slot slot in _slots)
        {
            long start = slot.Range?.Start ?? 0;
            stored.CopyTo(slot.Parameter.Name + FirstSuffix, slot.First!, start);
            stored.CopyTo(slot.Parameter.Name + SecondSuffix, slot.Second!, start);
            if (slot.Master is not null) stored.CopyTo(slot.Parameter.Name + MasterSuffix, slot.Master, start);
        }
        _isChecked = StepCount > 0;
    }

    private IEnumerable<SafetensorsTensor> StateTensors => State.Select(tensor => ParameterFiles.ToSafetensors(tensor.Key, tensor.Value));

    private static IEnumerable<StateKey> KeysOf(Parameter parameter)
    {
        long[] shape = parameter.Shape.ToArray();
        yield return new(parameter.Name + FirstSuffix, shape);
        yield return new(parameter.Name + SecondSuffix, shape);
        if (parameter.Value.DType != DType.Float32) yield return new(parameter.Name + MasterSuffix, shape);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_isDisposed) return;
        _isDisposed = true;
        Release();
    }

    private static void RequireRange(AdamWOptions options)
    {
        if (!(options.Beta1 is >= 0 and < 1 && options.Beta2 is > 0 and < 1 && options.Epsilon > 0 && double.IsFinite(options.Epsilon) && options.WeightDecay >= 0 && double.IsFinite(options.WeightDecay)))
            throw new ArgumentException($"AdamW: needs 0 <= Beta1 < 1, 0 < Beta2 < 1, Epsilon > 0 and WeightDecay >= 0, got {options}.", nameof(options));
    }

    private void RequireGradients()
    {
        string[] missing = [.. _slots.Where(slot => slot is { Parameter.IsTrainable: true, Gradient: null }).Select(slot => slot.Parameter.ToString())];
        if (missing.Length > 0)
            throw new InvalidOperationException($"AdamW: no gradient reached {string.Join(", ", missing.Take(5))}{(missing.Length > 5 ? $" and {missing.Length - 5} more" : "")} in the first step; freeze what the loss does not depend on (IsTrainable = false), or repair the model.");
    }

    private void Allocate()
    {
        if (_step is not null) return;
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        foreach (Slot slot in _slots)
        {
            Tensor value = slot.Value;
            slot.First = TensorScope.Release(Tensor.Zeros(value.Shape, DType.Float32, value.Device));
            slot.Second = TensorScope.Release(Tensor.Zeros(value.Shape, DType.Float32, value.Device));
            slot.Master = value.DType == DType.Float32 ? null : TensorScope.Release(value.To(DType.Float32));
        }
        _step = TensorScope.Release(Tensor.Zeros([1], DType.Int64, _device));
    }

    private void Release()
    {
        foreach (Slot slot in _slots)
        {
            slot.First?.Dispose();
            slot.Second?.Dispose();
            slot.Master?.Dispose();
            (slot.First, slot.Second, slot.Master) = (null, null, null);
        }
        _step?.Dispose();
        _step = null;
    }

    /// <summary>The state of a parameter, or of a range of one.</summary>
    private sealed class Slot(Parameter parameter, ParameterRange? range)
    {
        public Parameter Parameter { get; } = parameter;
        public ParameterRange? Range { get; } = range;
        public Tensor? RangeGradient { get; set; }

        /// <summary>In a scope of the caller's, where it is a view.</summary>
        public Tensor Value => Range?.Value ?? Parameter.Value;

        public Tensor? Gradient => Range is null ? Parameter.Gradient : RangeGradient;

        /// <summary>Which elements, behind the names of the state.</summary>
        public string Suffix => Range is { } own ? StateRange.Suffix(own.Start, own.Count) : "";

        public Tensor? First { get; set; }
        public Tensor? Second { get; set; }
        public Tensor? Master { get; set; }
    }
}
