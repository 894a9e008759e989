using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>What training makes smaller: turns a batch into a loss.</summary>
public abstract class Objective
{
    /// <summary>The mean cross-entropy of the next token over the targets that count.</summary>
    public static Objective NextToken { get; } = new NextTokenObjective();

    /// <summary>A name that differs where the loss differs; a run goes on only with the objective it began with.</summary>
    public abstract string Fingerprint { get; }

    /// <summary>Refuses data that the objective makes no sense of.</summary>
    /// <param name="model">What is trained.</param>
    /// <param name="data">What it is trained on or measured on.</param>
    /// <param name="batch">Sequences of a micro-batch.</param>
    /// <exception cref="ArgumentException">They do not fit; one line that says what to change.</exception>
    public virtual void RequireFit(LanguageModel model, SequenceSource data, int batch) { }

    /// <summary>Of how many things the loss of a batch is the mean: its weight among the micro-batches of a step.</summary>
    /// <param name="countedTargets">Targets of the batch that count; at least one.</param>
    /// <param name="batch">Sequences of the batch.</param>
    public virtual long CountOf(long countedTargets, int batch) => countedTargets;

    /// <summary>The loss of a batch, recorded by the open tape if there is one.</summary>
    /// <param name="model">What is trained.</param>
    /// <param name="tokens">[B, L].</param>
    /// <param name="targets">[B, L]; -100 where it does not count.</param>
    /// <returns>[] Float32, a mean.</returns>
    public abstract Tensor Loss(LanguageModel model, Tensor tokens, Tensor targets);
}
