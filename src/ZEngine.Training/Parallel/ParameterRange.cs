namespace ZEngine.Training;

/// <summary>Neighbouring elements of a parameter, in the order of its flattening: what one rank's optimizer keeps the state of.</summary>
/// <param name="Parameter">The parameter.</param>
/// <param name="Start">First element.</param>
/// <param name="Count">How many.</param>
internal readonly record struct ParameterRange(Parameter Parameter, long Start, long Count)
{
    /// <summary>A view of these elements of the parameter's value, [Count].</summary>
    public Tensor Value => Parameter.Value.Reshape(-1).Slice(0, Start, Count);
}
