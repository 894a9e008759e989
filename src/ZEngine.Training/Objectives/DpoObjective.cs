using System.Globalization;
using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>Direct preference optimization: the chosen answer becomes more likely than the rejected one, measured against a frozen reference.</summary>
/// <remarks>
/// Trains on <see cref="PreferenceSequences"/>, whose pairs stand as neighbouring rows of a batch; the loss is the mean over pairs.
/// With an adapter the reference is the same model while the adapter is paused: no second copy of the weights.
/// </remarks>
public sealed class DpoObjective : Objective
{
    private readonly LoraAdapter? _adapter;
    private readonly LanguageModel _reference;

    /// <summary>The reference is the model of an adapter, without the adapter.</summary>
    /// <param name="adapter">What is trained; its model must stay frozen.</param>
    /// <param name="beta">How strongly the model is held to the reference.</param>
    /// <param name="labelSmoothing">The probability that a pair is the wrong way round: from 0 to below 0.5.</param>
    public DpoObjective(LoraAdapter adapter, float beta = 0.1f, float labelSmoothing = 0) : this(Required(adapter).Model, beta, labelSmoothing, "base") => _adapter = adapter;

    /// <summary>The reference is a model of its own.</summary>
    /// <param name="reference">Is not trained; stays the caller's.</param>
    /// <param name="beta">How strongly the model is held to the reference.</param>
    /// <param name="labelSmoothing">The probability that a pair is the wrong way round: from 0 to below 0.5.</param>
    public DpoObjective(LanguageModel reference, float beta = 0.1f, float labelSmoothing = 0) : this(reference, beta, labelSmoothing, BaseFingerprint.Of(reference)) { }

    private DpoObjective(LanguageModel reference, float beta, float labelSmoothing, string name)
    {
        DpoLoss.RequireRange(beta, labelSmoothing);
        (_reference, Beta, LabelSmoothing) = (reference, beta, labelSmoothing);
        Fingerprint = string.Create(CultureInfo.InvariantCulture, $"dpo(beta={beta},smoothing={labelSmoothing},reference={name})");
    }

    /// <summary>How strongly the model is held to the reference.</summary>
    public float Beta { get; }

    /// <summary>The probability that a pair is the wrong way round.</summary>
    public float LabelSmoothing { get; }

    /// <inheritdoc/>
    public override string Fingerprint { get; }

    /// <inheritdoc/>
    public override void RequireFit(LanguageModel model, SequenceSource data, int batch)
    {
        if (_adapter is not null && model != _adapter.Model) throw new ArgumentException("DpoObjective: the adapter belongs to another model than the one that is trained.");
        if (_adapter is null && model == _reference) throw new ArgumentException("DpoObjective: the reference is the model that is trained; load it a second time, or train an adapter.");
        if (data is not PreferenceSequences) throw new ArgumentException($"DpoObjective: needs PreferenceSequences, got {data?.GetType().Name}.");
        if (batch % 2 != 0) throw new ArgumentException($"DpoObjective: a pair takes two rows, so Batch must be even, got {batch}.");
    }

    /// <summary>Pairs.</summary>
    public override long CountOf(long countedTargets, int batch) => batch / 2;

    /// <inheritdoc/>
    public override Tensor Loss(LanguageModel model, Tensor tokens, Tensor targets)
    {
        ArgumentNullException.ThrowIfNull(model);
        Tensor reference = Reference(tokens, targets), policy = DpoLoss.LogProbabilities(model.Forward(tokens), targets).Reshape(-1, 2);
        return DpoLoss.Of(policy.Select(1, 0), policy.Select(1, 1), reference.Select(1, 0), reference.Select(1, 1), Beta, LabelSmoothing);
    }

    private Tensor Reference(Tensor tokens, Tensor targets)
    {
        using TensorScope scope = TensorScope.Enter();
        using NoGradient still = Tape.NoGrad();
        if (_adapter is null) return scope.Keep(DpoLoss.LogProbabilities(_reference.Forward(tokens), targets).Reshape(-1, 2));
        if (!_adapter.IsBaseFrozen) throw new InvalidOperationException("DpoObjective: a parameter of the adapter's model is trainable, so the reference would move; freeze it, or give a reference model.");
        using LoraPause pause = _adapter.Pause();
        return scope.Keep(DpoLoss.LogProbabilities(_reference.Forward(tokens), targets).Reshape(-1, 2));
    }

    private static LoraAdapter Required(LoraAdapter adapter)
    {
        ArgumentNullException.ThrowIfNull(adapter);
        return adapter;
    }
}
