namespace ZEngine.Training;

/// <summary>The loss of direct preference optimization.</summary>
/// <remarks>Rafailov et al. 2023, arXiv:2305.18290, equation 7; label smoothing as in Mitchell 2023 (cDPO).</remarks>
public static class DpoLoss
{
    /// <summary>The mean of -(1 - s)·ln σ(β·Δ) - s·ln σ(-β·Δ), with Δ = (π₁ - π₂) - (ρ₁ - ρ₂).</summary>
    /// <param name="policyChosen">[pairs], π₁: log-probabilities of the chosen answers under the trained model.</param>
    /// <param name="policyRejected">[pairs], π₂.</param>
    /// <param name="referenceChosen">[pairs], ρ₁: under the frozen reference.</param>
    /// <param name="referenceRejected">[pairs], ρ₂.</param>
    /// <param name="beta">β, how strongly the model is held to the reference.</param>
    /// <param name="labelSmoothing">s, the probability that a pair is the wrong way round: from 0 to below 0.5.</param>
    /// <returns>[] Float32; ln 2 where the model is the reference.</returns>
    public static Tensor Of(Tensor policyChosen, Tensor policyRejected, Tensor referenceChosen, Tensor referenceRejected, float beta, float labelSmoothing = 0)
    {
        RequireRange(beta, labelSmoothing);
        Tensor margin = Ops.Scale(Ops.Subtract(Ops.Subtract(policyChosen, policyRejected), Ops.Subtract(referenceChosen, referenceRejected)), beta);
        Tensor loss = Ops.Map(Pointwise.Softplus, Ops.Scale(margin, -1));          // -ln σ(x) = softplus(-x)
        if (labelSmoothing > 0) loss = Ops.Add(Ops.Scale(loss, 1 - labelSmoothing), Ops.Scale(Ops.Map(Pointwise.Softplus, margin), labelSmoothing));
        return Ops.Mean(loss);
    }

    /// <summary>The log-probability of each sequence's targets: the sum over those that count.</summary>
    /// <param name="logits">[B, L, V].</param>
    /// <param name="targets">[B, L], Int32; -100 where it does not count.</param>
    /// <returns>[B], Float32.</returns>
    public static Tensor LogProbabilities(Tensor logits, Tensor targets)
    {
        ArgumentNullException.ThrowIfNull(logits);
        ArgumentNullException.ThrowIfNull(targets);
        int[] all = targets.ToArray<int>();
        (int batch, int length) = ((int)targets.Shape[0], (int)targets.Shape[1]);
        var sums = new Tensor[batch];
        for (int b = 0; b < batch; b++)
        {
            int counted = length - all.AsSpan(b * length, length).Count(-100);
            sums[b] = Ops.Scale(Ops.CrossEntropy(logits.Slice(0, b, 1), targets.Slice(0, b, 1)), -counted).Reshape(1);
        }
        return Ops.Concat(0, sums);
    }

    internal static void RequireRange(float beta, float labelSmoothing)
    {
        if (!(beta > 0) || !float.IsFinite(beta)) throw new ArgumentException($"DpoLoss: beta must be a positive number, got {beta}.");
        if (!(labelSmoothing is >= 0 and < 0.5f)) throw new ArgumentException($"DpoLoss: labelSmoothing must be from 0 to below 0.5, got {labelSmoothing}.");
    }
}
