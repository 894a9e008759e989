namespace ZEngine.Training;

/// <summary>How a run, or its part in this process, ended.</summary>
/// <param name="Step">Steps done.</param>
/// <param name="IsFinished">Whether all steps were done; otherwise it was cancelled.</param>
/// <param name="Checkpoint">The folder of the newest checkpoint, which holds the model at this step.</param>
/// <param name="HeldOutLoss">The last held-out loss, or null.</param>
/// <param name="SkippedSteps">Steps that were skipped since the run began.</param>
public sealed record TrainingResult(long Step, bool IsFinished, string Checkpoint, double? HeldOutLoss, long SkippedSteps);
