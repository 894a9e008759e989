namespace ZEngine.Training;

/// <summary>A parameter of the model and the change that an adapter puts on it.</summary>
internal sealed record LoraChange(Parameter Parameter, LowRankUpdate Update);
