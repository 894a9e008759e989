namespace ZEngine.Training;

/// <summary>A held-out loss.</summary>
/// <param name="Step">Steps done before.</param>
/// <param name="Loss">Mean loss in nats a token.</param>
/// <param name="IsBest">Whether it is the lowest of the run so far.</param>
public sealed record EvaluationReport(long Step, double Loss, bool IsBest);
