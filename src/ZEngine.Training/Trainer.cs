using System.Diagnostics;
using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>Trains a language model, or an adapter on it, on a stream of tokens, records the run, and goes on where it stopped.</summary>
/// <remarks>
/// A run that was stopped at any moment, by the cancellation token or by a kill, and started again ends with the bits of one that was
/// never stopped, for any number of threads. Loss and gradients are means over all that the objective
/// counts in a step, such as tokens. A step whose loss or gradient norm is not finite changes neither model nor optimizer; it is
/// counted and reported, and its data is not seen again.
/// </remarks>
#pragma warning disable CA1001 // these streams own nothing: the sources are the caller's
public sealed class Trainer
#pragma warning restore CA1001
{
    private readonly LanguageModel _model;
    private readonly TrainedModel _trained;
    private readonly Objective _objective;
    private readonly TokenStream _data;
    private readonly TokenStream? _heldOut;
    private readonly TrainingOptions _options;
    private readonly Schedule _schedule;
    private readonly CheckpointStore _store;
    private TrainerState _state;
    private long _savedStep = -1;
    private string _checkpoint = "";

    /// <summary>Checks that model, data and options fit together; nothing is written yet.</summary>
    /// <param name="model">Initialised or loaded; stays the caller's.</param>
    /// <param name="train">What to train on; stays the caller's.</param>
    /// <param name="heldOut">What to measure the held-out loss on, or null for none.</param>
    /// <param name="options">The rest.</param>
    /// <param name="adapter">Is trained with whatever of the model is trainable; attached to the model, stays the caller's. Null for none.</param>
    /// <param name="objective">What training makes smaller; null for the cross-entropy of the next token.</param>
    /// <exception cref="ArgumentException">They do not fit; one line that says what to change.</exception>
    public Trainer(LanguageModel model, SequenceSource train, SequenceSource? heldOut, TrainingOptions options, LoraAdapter? adapter = null, Objective? objective = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(train);
        ArgumentNullException.ThrowIfNull(options);
        options.RequireValid();
        (_trained, _objective) = (new TrainedModel(model, adapter), objective ?? Objective.NextToken);
        foreach (SequenceSource? data in (ReadOnlySpan<SequenceSource?>)[train, heldOut])
        {
            if (data is not null && data.Length != options.Length) throw new ArgumentException($"Trainer: the data has sequences of {data.Length} tokens, TrainingOptions.Length is {options.Length}.", nameof(options));
            if (data is not null && data.Vocabulary > model.VocabularySize) throw new ArgumentException($"Trainer: the data has tokens up to {data.Vocabulary - 1}, the model has {model.VocabularySize} classes.", nameof(model));
            if (data is not null) _objective.RequireFit(model, data, options.Batch);
        }
        // They are no parameters of the model: neither optimizer nor checkpoint would see them.
        foreach (Parameter parameter in model.Parameters)
            if (parameter.Update is not null) throw new ArgumentException($"Trainer: {parameter} has a low-rank update, which the trainer does not train; use AdamW with the update's own parameters, or merge the update first.", nameof(model));
        (_model, _options, _schedule) = (model, options, options.CreateSchedule());
        _data = new TokenStream(train, options.Batch);
        _heldOut = heldOut is null || options.EvaluationInterval == 0 ? null : new TokenStream(heldOut, options.Batch);
        _store = new CheckpointStore(CheckpointFolder(options.RunFolder), options.KeepCheckpoints);
        _state = new TrainerState { Options = [.. options.Decisive, new("adapter", _trained.Description), new("objective", _objective.Fingerprint)], Data = train.Fingerprint };
    }

    /// <summary>Raised after every step.</summary>
    public event Action<StepReport>? StepTaken;

    /// <summary>Raised after every held-out loss.</summary>
    public event Action<EvaluationReport>? Evaluated;

    /// <summary>Raised with the folder of every checkpoint that was published.</summary>
    public event Action<string>? CheckpointSaved;

    /// <summary>Raised with one line for everything that is no error and should be known: where the run goes on, checkpoints that are not trusted.</summary>
    public event Action<string>? Noticed;

    /// <summary>Where a run keeps its checkpoints.</summary>
    public static string CheckpointFolder(string runFolder) => Path.Combine(runFolder, "checkpoints");

    /// <summary>Where a run keeps its record.</summary>
    public static string MetricsPath(string runFolder) => Path.Combine(runFolder, "metrics.jsonl");

    /// <summary>Trains until the last step or until cancelled, and leaves a checkpoint of where it stopped.</summary>
    /// <param name="cancellation">Takes effect within a step: the step begun is dropped, a checkpoint is saved, and the call returns.</param>
    /// <exception cref="IOException">The run folder is in use or cannot be written; earlier checkpoints are intact.</exception>
    /// <exception cref="InvalidDataException">The folder's run is of another model, configuration, data or options.</exception>
    /// <exception cref="InvalidOperationException">No gradient reached a trainable parameter, or too many steps in a row were skipped.</exception>
    public TrainingResult Run(CancellationToken cancellation = default)
    {
        using RunLock runLock = RunLock.Take(_options.RunFolder);
        using var optimizer = new AdamW(_trained.Parameters, new AdamWOptions(_options.Beta1, _options.Beta2, _options.Epsilon, _options.WeightDecay));
        Begin(optimizer);
        using MetricsFile metrics = MetricsFile.Open(MetricsPath(_options.RunFolder), _state.MetricsBytes, out long missing);
        if (missing > 0) Noticed?.Invoke($"{MetricsPath(_options.RunFolder)}: {missing} bytes of the record before step {_state.Step} are missing; the run goes on without them.");

        var clock = Stopwatch.StartNew();
        TimeSpan before = _state.Elapsed;
        while (!cancellation.IsCancellationRequested)
        {
            if (IsEvaluationDue() && !Evaluate(metrics, cancellation)) break;
            if (IsCheckpointDue()) Save(optimizer, metrics, before + clock.Elapsed);
            if (_state.Step == _options.Steps) break;
            if (!TakeStep(optimizer, metrics, before, clock, cancellation)) break;
        }
        if (_savedStep != _state.Step) Save(optimizer, metrics, before + clock.Elapsed);
        return new TrainingResult(_state.Step, _state.Step == _options.Steps && !IsEvaluationDue(), _checkpoint, _state.HeldOutLoss, _state.SkippedSteps);
    }

    /// <summary>Goes on from the newest checkpoint, or begins.</summary>
    private void Begin(AdamW optimizer)
    {
        string run = _options.RunFolder;
        if (!_options.Resume && (_store.All.Count > 0 || File.Exists(MetricsPath(run))))
            throw new IOException($"{run}: the folder holds a run already; resume it, or choose another folder.");
        _store.Clean();
        string? newest = _store.FindNewest(out IReadOnlyList<InvalidCheckpoint> invalid);
        foreach (InvalidCheckpoint checkpoint in invalid) Noticed?.Invoke($"{checkpoint.Folder}: not trusted: {checkpoint.Reason}.");
        if (newest is null)
        {
            if (invalid.Count > 0) throw new InvalidDataException($"{_store.Folder}: none of the {invalid.Count} checkpoints is valid ({Path.GetFileName(invalid[0].Folder)}: {invalid[0].Reason}); move them away to begin anew.");
            return;
        }
        _state = RunCheckpoint.Read(newest, _trained, optimizer, _state, _options.AcceptChanges) with { Options = _state.Options, Data = _state.Data };
        if (_state.Step > _options.Steps) throw new InvalidDataException($"{newest}: has {_state.Step} steps behind it, more than the {_options.Steps} of the run.");
        CheckpointStore.SetAside(invalid);
        _data.Seek(_state.Position);
        (_savedStep, _checkpoint) = (_state.Step, newest);
        Noticed?.Invoke($"{newest}: the run goes on from step {_state.Step}.");
    }

    private bool IsEvaluationDue() => _heldOut is not null && _state.EvaluatedStep != _state.Step && (_state.Step % _options.EvaluationInterval == 0 || _state.Step == _options.Steps);

    private bool IsCheckpointDue() => _savedStep != _state.Step && (_state.Step == _options.Steps || _state.Step > 0 && _options.CheckpointInterval > 0 && _state.Step % _options.CheckpointInterval == 0);

    private void Save(AdamW optimizer, MetricsFile metrics, TimeSpan elapsed)
    {
        metrics.Flush();
        TrainerState state = _state with { Position = _data.Position, MetricsBytes = metrics.Bytes, Elapsed = elapsed };
        int known = _store.Notices.Count;
        _checkpoint = _store.Save(state.Step, folder => RunCheckpoint.Write(folder, _trained, optimizer, state));
        _savedStep = state.Step;
        foreach (string notice in _store.Notices.Skip(known)) Noticed?.Invoke(notice);
        CheckpointSaved?.Invoke(_checkpoint);
    }

    /// <returns>Whether the step was completed; otherwise it was cancelled and left no trace.</returns>
    private bool TakeStep(AdamW optimizer, MetricsFile metrics, TimeSpan before, Stopwatch clock, CancellationToken cancellation)
    {
        long position = _data.Position;
        TimeSpan begin = clock.Elapsed;
        float learningRate = _schedule[_state.Step];
        (double loss, long tokens, float norm)? result;
        try
        {
            result = Update(optimizer, learningRate, cancellation);
        }
        finally
        {
            optimizer.ClearGradients();
        }
        if (result is not var (loss, tokens, norm))
        {
            _data.Seek(position);
            return false;
        }
        bool isSkipped = !double.IsFinite(loss) || !float.IsFinite(norm);
        _state = _state with
        {
            Step = _state.Step + 1,
            Tokens = _state.Tokens + tokens,
            SkippedSteps = _state.SkippedSteps + (isSkipped ? 1 : 0),
            SkipsInARow = isSkipped ? _state.SkipsInARow + 1 : 0,
        };
        double seconds = (clock.Elapsed - begin).TotalSeconds;
        var report = new StepReport(_state.Step, loss, norm, learningRate, tokens / Math.Max(seconds, 1e-9), _state.Tokens, isSkipped, _state.SkippedSteps, before + clock.Elapsed);
        metrics.Append(report);
        StepTaken?.Invoke(report);
        if (_state.SkipsInARow >= _options.MaxSkipsInARow)
            throw new InvalidOperationException($"Trainer: {_state.SkipsInARow} steps in a row up to step {_state.Step} had a loss or gradient norm that is not finite (loss {loss}, norm {norm}); lower the learning rate, or go back to an earlier checkpoint.");
        return true;
    }

    /// <summary>Gradients of all micro-batches and the optimizer's step; null when cancelled.</summary>
    private (double Loss, long Tokens, float Norm)? Update(AdamW optimizer, float learningRate, CancellationToken cancellation)
    {
        using TensorScope scope = TensorScope.Enter();
        Device device = _model.Device;
        var batches = new (Tensor Tokens, Tensor Targets, long Counted)[_options.Accumulation];
        long total = 0, counts = 0;
        for (int i = 0; i < batches.Length; i++)
        {
            (Tensor tokens, Tensor targets) = _data.Next(device);
            batches[i] = (tokens, targets, _data.CountedTargets == 0 ? 0 : _objective.CountOf(_data.CountedTargets, _data.Batch));
            total += _data.CountedTargets;
            counts += batches[i].Counted;
        }
        if (counts == 0) throw new InvalidDataException($"Trainer: none of the targets of step {_state.Step + 1} counts; look at the masks of the data.");

        double loss = 0;
        foreach ((Tensor tokens, Tensor targets, long counted) in batches)
        {
            if (cancellation.IsCancellationRequested) return null;
            if (counted == 0) continue;
            double share = (double)counted / counts;           // the loss is a mean over what its batch counts
            using Tape tape = Tape.Begin();
            Tensor mean = _objective.Loss(_model, tokens, targets);
            tape.Backward(mean, Tensor.Scalar((float)share, device));
            loss += share * mean.Item();
        }
        if (cancellation.IsCancellationRequested) return null;
        // One moment that is not finite would spoil the parameter for good.
        if (!double.IsFinite(loss)) return (loss, total, float.NaN);
        Tensor norm = Gradients.Norm(_trained.Parameters);
        optimizer.Step(learningRate, norm, _options.Clip);
        return (loss, total, norm.Item());
    }

    /// <returns>Whether it was completed; otherwise it was cancelled and is due again.</returns>
    private bool Evaluate(MetricsFile metrics, CancellationToken cancellation)
    {
        _heldOut!.Seek(0);
        Device device = _model.Device;
        long batches = Math.Clamp(_heldOut.Sequences.EpochLength / _heldOut.Batch, 1, _options.EvaluationBatches), counts = 0;
        double sum = 0;
        for (long i = 0; i < batches; i++)
        {
            if (cancellation.IsCancellationRequested) return false;
            using TensorScope scope = TensorScope.Enter();
            (Tensor inputs, Tensor targets) = _heldOut.Next(device);
            if (_heldOut.CountedTargets == 0) continue;
            long counted = _objective.CountOf(_heldOut.CountedTargets, _heldOut.Batch);
            sum += _objective.Loss(_model, inputs, targets).Item() * (double)counted;
            counts += counted;
        }
        if (counts == 0) throw new InvalidDataException("Trainer: none of the held-out targets counts; look at the masks of the data.");
        double loss = sum / counts;
        bool isBest = double.IsFinite(loss) && !(_state.BestLoss <= loss);
        _state = _state with { EvaluatedStep = _state.Step, HeldOutLoss = double.IsFinite(loss) ? loss : null, BestLoss = isBest ? loss : _state.BestLoss };
        var report = new EvaluationReport(_state.Step, loss, isBest);
        metrics.Append(report);
        Evaluated?.Invoke(report);
        return true;
    }
}
