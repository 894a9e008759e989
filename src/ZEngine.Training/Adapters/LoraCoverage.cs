using System.Globalization;

namespace ZEngine.Training;

/// <summary>How much of a model an adapter covers.</summary>
/// <param name="Covered">Parameters with a change.</param>
/// <param name="Parameters">Parameters of the model.</param>
/// <param name="TrainableNumbers">Numbers of the adapter.</param>
/// <param name="ModelNumbers">Numbers of the model.</param>
public sealed record LoraCoverage(int Covered, int Parameters, long TrainableNumbers, long ModelNumbers)
{
    /// <inheritdoc/>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture, $"{Covered} of {Parameters} parameters covered, {TrainableNumbers} trainable numbers beside {ModelNumbers} frozen ones ({100.0 * TrainableNumbers / ModelNumbers:0.###} %)");
}
