namespace ZEngine;

/// <summary>Variants of the cross-entropy loss.</summary>
/// <param name="IgnoreIndex">Targets of this value do not count, neither in the sum nor in the mean.</param>
/// <param name="LabelSmoothing">Share of the target's probability that is spread over all classes, 0 to 1.</param>
/// <param name="ZLoss">Weight of the squared log-partition function.</param>
public readonly record struct CrossEntropyOptions(long IgnoreIndex = -100, float LabelSmoothing = 0, float ZLoss = 0)
{
    /// <summary>No smoothing, no z-loss, targets of -100 ignored.</summary>
    public CrossEntropyOptions() : this(-100) { }
}

public static partial class Ops
{
    /// <summary>The mean cross-entropy, in nats, of softmax(logits) against target classes. Probabilities are never stored.</summary>
    /// <param name="logits">[..., V].</param>
    /// <param name="targets">[...], Int32 or Int64; 0 to V - 1 or the ignored index.</param>
    /// <param name="options">Variants.</param>
    /// <returns>[] Float32; 0 when every target is ignored.</returns>
    /// <remarks>lse - (1 - s)·logit[target] - s·mean(logits) + z·lse², averaged over the targets that count.</remarks>
    /// <exception cref="ArgumentException">A target is no class (on the CPU).</exception>
    public static Tensor CrossEntropy(Tensor logits, Tensor targets, CrossEntropyOptions? options = null)
    {
        var contract = new ShapeContract(nameof(CrossEntropy));
        contract.Require(logits, "... V");
        contract.RequireIndex(targets, "...");
        CrossEntropyOptions chosen = options ?? new CrossEntropyOptions();
        contract.Require(targets.Shape.SequenceEqual(logits.Shape[..^1]), $"targets must be {Tensor.ShapeText(logits.Shape[..^1])} for logits {Tensor.ShapeText(logits.Shape)}, got {Tensor.ShapeText(targets.Shape)}.");
        contract.Require(chosen.LabelSmoothing is >= 0 and <= 1, $"LabelSmoothing must be from 0 to 1, got {chosen.LabelSmoothing}.");
        using TensorScope scope = TensorScope.Enter();
        (logits, targets) = (logits.WithEvenRows(), targets.Contiguous());

        Tensor partition = Tensor.Empty([targets.Count, 2], DType.Float32, logits.Device);
        Tensor loss = Tensor.Empty([], DType.Float32, logits.Device), counted = Tensor.Empty([], DType.Float32, logits.Device);
        logits.Backend.CrossEntropyForward(logits, targets, chosen, partition, loss, counted);
        return scope.Keep(Tape.Tracks(logits) ? RecordCrossEntropy(logits, targets, chosen, partition, loss, counted) : loss);
    }

    private static Tensor RecordCrossEntropy(Tensor logits, Tensor targets, CrossEntropyOptions options, Tensor partition, Tensor loss, Tensor counted) =>
        Tape.Record(loss, [logits], [logits, targets, partition, counted], dLoss =>
        {
            Tensor dLogits = Tensor.Empty(logits.Shape, logits.DType, logits.Device);
            logits.Backend.CrossEntropyBackward(logits, targets, options, partition, counted, dLoss, dLogits);
            return [dLogits];
        });
}

public abstract partial class Backend
{
    /// <summary>Writes the partition function of each row that counts as its largest logit and the log of Σ exp(logit - largest) [rows, 2], the mean loss [] and the number of targets that counted [].</summary>
    internal abstract void CrossEntropyForward(Tensor logits, Tensor targets, CrossEntropyOptions options, Tensor partition, Tensor loss, Tensor counted);

    /// <summary>Overwrites dLogits; dLoss is [].</summary>
    internal abstract void CrossEntropyBackward(Tensor logits, Tensor targets, CrossEntropyOptions options, Tensor partition, Tensor counted, Tensor dLoss, Tensor dLogits);
}
