namespace ZEngine.Training;

/// <summary>What one optimizer step did.</summary>
/// <param name="Step">Steps done, this one among them: the first report says 1.</param>
/// <param name="Loss">Mean loss over the step's tokens, in nats, before the step.</param>
/// <param name="GradientNorm">Before clipping.</param>
/// <param name="LearningRate">Of this step.</param>
/// <param name="TokensPerSecond">Trained tokens over the step's wall time.</param>
/// <param name="Tokens">Tokens trained on since the run began.</param>
/// <param name="IsSkipped">Whether loss or norm was not finite, and nothing was changed.</param>
/// <param name="SkippedSteps">Skipped steps since the run began.</param>
/// <param name="Elapsed">Time spent since the run began, over all its processes.</param>
public sealed record StepReport(long Step, double Loss, float GradientNorm, float LearningRate, double TokensPerSecond, long Tokens, bool IsSkipped, long SkippedSteps, TimeSpan Elapsed);
