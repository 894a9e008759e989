using System.Diagnostics;
using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>Trains a language model, or an adapter on it, on a stream of tokens, records the run, and goes on where it stopped.</summary>
/// <remarks>
/// A run that was stopped at any moment, by the cancellation token or by a kill, and started again ends with the bits of one that was
/// never stopped, for any number of threads. Loss and gradients are means over all that the objective counts in a step, such as tokens.
/// A step whose loss or gradient norm is not finite changes neither model nor optimizer; it is counted and reported, and its data is
/// not seen again; after some in a row the run goes back to a checkpoint and on with later data (<see cref="TrainingOptions.RollBackAfterSkips"/>).
/// Ranks of a world share the work of every step (<see cref="TrainingOptions.Accumulation"/>); rank 0 alone writes the record. Checkpoints are
/// copied at a step and written while training goes on; <see cref="Run"/> returns when they are on disk.
/// </remarks>
#pragma warning disable CA1001 // these streams own nothing: the sources are the caller's
public sealed class Trainer
#pragma warning restore CA1001
{
    private readonly LanguageModel _model;
    private readonly TrainedModel _trained;
    private readonly Objective _objective;
    private readonly Communicator _world;
    private readonly StepPlan _plan;
    private readonly TokenStream _data;
    private readonly TokenStream? _heldOut;
    private readonly TrainingOptions _options;
    private readonly Schedule _schedule;
    private readonly CheckpointStore _store;
    private readonly StepMonitor _monitor;
    private TrainerState _state;
    private long _savedStep = -1, _position;
    private string _checkpoint = "";

    /// <summary>Checks that model, data and options fit together; nothing is written yet.</summary>
    /// <param name="model">Initialised or loaded; stays the caller's.</param>
    /// <param name="train">What to train on; stays the caller's.</param>
    /// <param name="heldOut">What to measure the held-out loss on, or null for none.</param>
    /// <param name="options">The rest.</param>
    /// <param name="adapter">Is trained with whatever of the model is trainable; attached to the model, stays the caller's. Null for none.</param>
    /// <param name="objective">What training makes smaller; null for the cross-entropy of the next token.</param>
    /// <param name="world">The ranks that train together, each with a model of the same weights; null for one. Stays the caller's.</param>
    /// <exception cref="ArgumentException">They do not fit; one line that says what to change.</exception>
    public Trainer(LanguageModel model, SequenceSource train, SequenceSource? heldOut, TrainingOptions options, LoraAdapter? adapter = null, Objective? objective = null, Communicator? world = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(train);
        ArgumentNullException.ThrowIfNull(options);
        options.RequireValid();
        (_trained, _objective, _world) = (new TrainedModel(model, adapter), objective ?? Objective.NextToken, world ?? Communicator.Single);
        _plan = StepPlan.Create(_world.Rank, _world.Size, options.Batch, options.Accumulation);
        foreach (SequenceSource? data in (ReadOnlySpan<SequenceSource?>)[train, heldOut])
        {
            if (data is not null && data.Length != options.Length) throw new ArgumentException($"Trainer: the data has sequences of {data.Length} tokens, TrainingOptions.Length is {options.Length}.", nameof(options));
            if (data is not null && data.Vocabulary > model.VocabularySize) throw new ArgumentException($"Trainer: the data has tokens up to {data.Vocabulary - 1}, the model has {model.VocabularySize} classes.", nameof(model));
            if (data is not null) _objective.RequireFit(model, data, _plan.Rows);
        }
        (_model, _options, _schedule) = (model, options, options.CreateSchedule());
        _data = new TokenStream(train, _plan.Rows);
        _heldOut = heldOut is null || options.EvaluationInterval == 0 ? null : new TokenStream(heldOut, options.Batch);
        _store = new CheckpointStore(CheckpointFolder(options.RunFolder), options.KeepCheckpoints);
        Layout = new Layout(_world.Size);
        _monitor = new StepMonitor(_world, options.RunFolder, notice => Noticed?.Invoke(notice));
        _state = new TrainerState { Layout = Layout, Options = [.. options.Decisive, new("adapter", _trained.Description), new("objective", _objective.Fingerprint)], Data = train.Fingerprint };
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

    /// <summary>How the ranks share the work, and which of them sum the gradients of which parameters.</summary>
    public Layout Layout { get; }

    /// <summary>Whether the run has, on this number of ranks, the bits that it has on one.</summary>
    public bool HasBitsOfOneRank => _plan.HasBitsOfOneRank;

    /// <summary>Trains until the last step or until cancelled, and leaves a checkpoint of where it stopped.</summary>
    /// <param name="cancellation">
    /// Takes effect within a step: the step begun is dropped, a checkpoint is saved, and the call returns. In a world of several ranks any
    /// rank's counts, and all stop before the same step.
    /// </param>
    /// <exception cref="IOException">The run folder is in use or cannot be written; earlier checkpoints are intact.</exception>
    /// <exception cref="CommunicatorException">A rank is gone or stuck; earlier checkpoints are intact.</exception>
    /// <exception cref="InvalidDataException">The folder's run is of another model, configuration, data or options.</exception>
    /// <exception cref="InvalidOperationException">No gradient reached a trainable parameter, or too many steps in a row were skipped.</exception>
    public TrainingResult Run(CancellationToken cancellation = default)
    {
        using RunLock? runLock = _world.Rank == 0 ? RunLock.Take(_options.RunFolder) : null;
        using var parallel = new DataParallel(_trained.Parameters, _world, Layout, _options.IsOptimizerSharded, _options.BucketBytes, _options.SegmentElements);
        using var optimizer = new AdamW(_trained.Parameters, new AdamWOptions(_options.Beta1, _options.Beta2, _options.Epsilon, _options.WeightDecay), parallel.Ranges);
        Begin(optimizer);
        using MetricsFile? metrics = _world.Rank == 0 ? OpenMetrics() : null;
        using var saver = new CheckpointSaver(_store, _world, _options.IsSaveInBackground, OnPublished, notice => Noticed?.Invoke(notice));

        var clock = Stopwatch.StartNew();
        TimeSpan before = _state.Elapsed;
        bool isAlone = _world.Size == 1;                       // otherwise all ranks stop together, where they ask each other
        while (!(isAlone && cancellation.IsCancellationRequested))
        {
            if (IsEvaluationDue() && !Evaluate(metrics, isAlone ? cancellation : CancellationToken.None)) break;
            if (IsCheckpointDue()) Save(saver, optimizer, metrics, before + clock.Elapsed);
            if (_state.Step == _options.Steps) break;
            if (!TakeStep(parallel, optimizer, saver, metrics, before, clock, cancellation)) break;
            if (_options.RollBackAfterSkips > 0 && _state.SkipsInARow >= _options.RollBackAfterSkips && _state.GoodStep >= 0) RollBack(saver, optimizer, metrics);
        }
        if (_savedStep != _state.Step) Save(saver, optimizer, metrics, before + clock.Elapsed);
        saver.Finish();
        return new TrainingResult(_state.Step, _state.Step == _options.Steps && !IsEvaluationDue(), _checkpoint, _state.HeldOutLoss, _state.SkippedSteps);
    }

    private MetricsFile OpenMetrics()
    {
        string path = MetricsPath(_options.RunFolder);
        MetricsFile metrics = MetricsFile.Open(path, _state.MetricsBytes, out long missing);
        if (missing > 0) Noticed?.Invoke($"{path}: {missing} bytes of the record before step {_state.Step} are missing; the run goes on without them.");
        return metrics;
    }

    /// <summary>Goes on from the newest checkpoint, or begins; rank 0 looks for it.</summary>
    private void Begin(AdamW optimizer)
    {
        IReadOnlyList<InvalidCheckpoint> invalid = [];
        string? newest = _world.Rank == 0 ? FindNewest(out invalid) : null;
        newest = _world.GatherText(newest ?? "")[0];
        if (newest.Length == 0) return;
        _state = RunCheckpoint.Read(newest, _trained, optimizer, _state, _options.AcceptChanges) with { Options = _state.Options, Data = _state.Data, Layout = Layout };
        if (_state.Step > _options.Steps) throw new InvalidDataException($"{newest}: has {_state.Step} steps behind it, more than the {_options.Steps} of the run.");
        CheckpointStore.SetAside(invalid);
        (_position, _savedStep, _checkpoint) = (_state.Position, _state.Step, newest);
        Noticed?.Invoke($"{newest}: the run goes on from step {_state.Step}.");
    }

    private string? FindNewest(out IReadOnlyList<InvalidCheckpoint> invalid)
    {
        string run = _options.RunFolder;
        if (!_options.Resume && (_store.All.Count > 0 || File.Exists(MetricsPath(run))))
            throw new IOException($"{run}: the folder holds a run already; resume it, or choose another folder.");
        _store.Clean();
        string? newest = _store.FindNewest(out invalid);
        foreach (InvalidCheckpoint checkpoint in invalid) Noticed?.Invoke($"{checkpoint.Folder}: not trusted: {checkpoint.Reason}.");
        if (newest is null && invalid.Count > 0)
            throw new InvalidDataException($"{_store.Folder}: none of the {invalid.Count} checkpoints is valid ({Path.GetFileName(invalid[0].Folder)}: {invalid[0].Reason}); move them away to begin anew.");
        return newest;
    }

    private bool IsEvaluationDue() => _heldOut is not null && _state.EvaluatedStep != _state.Step && (_state.Step % _options.EvaluationInterval == 0 || _state.Step == _options.Steps);

    private bool IsCheckpointDue() => _savedStep != _state.Step && (_state.Step == _options.Steps || _state.Step > 0 && _options.CheckpointInterval > 0 && _state.Step % _options.CheckpointInterval == 0);

    private void Save(CheckpointSaver saver, AdamW optimizer, MetricsFile? metrics, TimeSpan elapsed)
    {
        metrics?.Flush();
        bool isRegular = _options.CheckpointInterval > 0 && _state.Step % _options.CheckpointInterval == 0;
        if (isRegular && _state.SkipsInARow == 0) _state = _state with { GoodStep = _state.Step, RollBacks = 0 };
        TrainerState state = _state with { Position = _position, MetricsBytes = metrics?.Bytes ?? 0, Elapsed = elapsed };
        bool isSharded = _options.IsOptimizerSharded && _world.Size > 1;
        saver.Save(state.Step, copies => RunCheckpoint.Prepare(copies, _trained, optimizer, state, _world, isSharded), state.GoodStep);
        _savedStep = state.Step;
    }

    private void OnPublished(string folder)
    {
        _checkpoint = folder;
        CheckpointSaved?.Invoke(folder);
    }

    /// <summary>Goes back to the newest checkpoint before the losses went wrong, and on with the data behind them; all ranks do, since all saw the same numbers.</summary>
    private void RollBack(CheckpointSaver saver, AdamW optimizer, MetricsFile? metrics)
    {
        saver.Finish();
        if (_state.RollBacks == _options.MaxRollBacks) throw NotFinite($"and going back {_state.RollBacks} times to step {_state.GoodStep} did not help");
        string folder = _store.FolderOf(_state.GoodStep);
        TrainerState old = RunCheckpoint.Read(folder, _trained, optimizer, _state, _options.AcceptChanges);
        if (_world.Rank == 0) _store.DeleteAfter(old.Step);
        Noticed?.Invoke($"{folder}: {_state.SkipsInARow} steps in a row up to step {_state.Step} were not finite; the run goes back to step {old.Step}, and on with later data.");
        metrics?.AppendRollBack(_state.Step, old.Step);
        _state = old with { Options = _state.Options, Data = _state.Data, Layout = Layout, SkippedSteps = _state.SkippedSteps, RollBacks = _state.RollBacks + 1 };
        (_savedStep, _checkpoint) = (old.Step, folder);
    }

    private InvalidOperationException NotFinite(string what) =>
        new($"Trainer: {_state.SkipsInARow} steps in a row up to step {_state.Step} had a loss or gradient norm that is not finite ({what}); lower the learning rate, or go back to an earlier checkpoint.");

    /// <returns>Whether the step was completed; otherwise it was cancelled and left no trace.</returns>
    private bool TakeStep(DataParallel parallel, AdamW optimizer, CheckpointSaver saver, MetricsFile? metrics, TimeSpan before, Stopwatch clock, CancellationToken cancellation)
    {
        TimeSpan begin = clock.Elapsed;
        float learningRate = _schedule[_state.Step];
        (double loss, long tokens, float norm, TimeSpan own)? result;
        try
        {
            result = Update(parallel, optimizer, saver, learningRate, cancellation);
        }
        finally
        {
            optimizer.ClearGradients();
            parallel.Clear();
        }
        if (result is not var (loss, tokens, norm, own)) return false;
        _position = checked(_position + _plan.Sequences);
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
        metrics?.Append(report);
        StepTaken?.Invoke(report);
        _monitor.Note(_state.Step, own);
        if (_state.SkipsInARow >= _options.MaxSkipsInARow) throw NotFinite(FormattableString.Invariant($"loss {loss}, norm {norm}"));
        return true;
    }

    /// <summary>Gradients of all micro-batches and the optimizer's step; null when cancelled.</summary>
    private (double Loss, long Tokens, float Norm, TimeSpan Own)? Update(DataParallel parallel, AdamW optimizer, CheckpointSaver saver, float learningRate, CancellationToken cancellation)
    {
        using TensorScope scope = TensorScope.Enter();
        Device device = _model.Device;
        var own = Stopwatch.StartNew();
        var batches = new (Tensor Tokens, Tensor Targets, long Counted)[_plan.MicroBatches];
        long total = 0, counts = 0;
        for (int i = 0; i < batches.Length; i++)
        {
            _data.Seek(_plan.PlaceOf(_position, i));
            (Tensor tokens, Tensor targets) = _data.Next(device);
            batches[i] = (tokens, targets, _data.CountedTargets == 0 ? 0 : _objective.CountOf(_data.CountedTargets, _data.Batch));
            total += _data.CountedTargets;
            counts += batches[i].Counted;
        }
        own.Stop();
        long[][] all = _world.Gather<long>([total, counts, cancellation.IsCancellationRequested ? 1 : 0, (long)saver.Phase]);
        (total, counts) = (all[0].Sum(), all[1].Sum());
        saver.Advance([.. all[3].Select(phase => (SavePhase)phase)]);
        if (all[2].Any(isCancelled => isCancelled != 0)) return null;
        if (counts == 0) throw new InvalidDataException($"Trainer: none of the targets of step {_state.Step + 1} counts; look at the masks of the data.");

        own.Start();
        var losses = new double[batches.Length];
        for (int i = 0; i < batches.Length; i++)
        {
            if (_world.Size == 1 && cancellation.IsCancellationRequested) return null;
            losses[i] = Backward(parallel, batches[i].Tokens, batches[i].Targets, (double)batches[i].Counted / counts, isLast: i == batches.Length - 1);
        }
        own.Stop();
        parallel.Finish();
        double loss = 0;
        foreach (double part in _plan.InOrder(_world.Gather<double>(losses))) loss += part;
        if (_world.Size == 1 && cancellation.IsCancellationRequested) return null;
        // One moment that is not finite would spoil the parameter for good. All ranks see the same numbers, so all skip.
        if (!double.IsFinite(loss)) return (loss, total, float.NaN, own.Elapsed);
        Tensor norm = parallel.Norm();
        parallel.Step(optimizer, learningRate, norm, _options.Clip);
        return (loss, total, norm.Item(), own.Elapsed);
    }

    /// <summary>One micro-batch: its share of the step's loss, which is a mean over what its batch counts.</summary>
    private double Backward(DataParallel parallel, Tensor tokens, Tensor targets, double share, bool isLast)
    {
        if (share == 0)
        {
            parallel.SkipBackward(isLast);
            return 0;
        }
        using Tape tape = Tape.Begin();
        Tensor mean = _objective.Loss(_model, tokens, targets);
        parallel.Backward(tape, mean, Tensor.Scalar((float)share, _model.Device), isLast);
        return share * mean.Item();
    }

    /// <returns>Whether it was completed; otherwise it was cancelled and is due again.</returns>
    private bool Evaluate(MetricsFile? metrics, CancellationToken cancellation)
    {
        Device device = _model.Device;
        long batches = Math.Clamp(_heldOut!.Sequences.EpochLength / _heldOut.Batch, 1, _options.EvaluationBatches);
        // Ranks take turns with the batches; the sum is in the order of the batches.
        var own = new double[2 * ((batches + _world.Size - 1) / _world.Size)];
        for (long i = _world.Rank; i < batches; i += _world.Size)
        {
            if (cancellation.IsCancellationRequested) return false;
            using TensorScope scope = TensorScope.Enter();
            _heldOut.Seek(i * _heldOut.Batch);
            (Tensor inputs, Tensor targets) = _heldOut.Next(device);
            if (_heldOut.CountedTargets == 0) continue;
            long counted = _objective.CountOf(_heldOut.CountedTargets, _heldOut.Batch);
            own[2 * (i / _world.Size)] = _objective.Loss(_model, inputs, targets).Item() * (double)counted;
            own[2 * (i / _world.Size) + 1] = counted;
        }
        double[][] all = _world.Gather<double>(own);
        double sum = 0, counts = 0;
        for (long i = 0; i < batches; i++)
        {
            sum += all[2 * (i / _world.Size)][i % _world.Size];
            counts += all[2 * (i / _world.Size) + 1][i % _world.Size];
        }
        if (counts == 0) throw new InvalidDataException("Trainer: none of the held-out targets counts; look at the masks of the data.");
        double loss = sum / counts;
        bool isBest = double.IsFinite(loss) && !(_state.BestLoss <= loss);
        _state = _state with { EvaluatedStep = _state.Step, HeldOutLoss = double.IsFinite(loss) ? loss : null, BestLoss = isBest ? loss : _state.BestLoss };
        var report = new EvaluationReport(_state.Step, loss, isBest);
        metrics?.Append(report);
        Evaluated?.Invoke(report);
        return true;
    }
}
