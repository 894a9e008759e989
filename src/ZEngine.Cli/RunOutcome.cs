namespace ZEngine.Cli;

/// <summary>How a run ended.</summary>
/// <param name="IsFinished">Whether all steps were done; otherwise it was interrupted, after a checkpoint.</param>
/// <param name="Model">The folder of the exported model; null when interrupted.</param>
/// <param name="HeldOutText">The beginning of the held-out text, as a prompt.</param>
/// <param name="IsPreempted">Whether the interruption was a request to save and stop.</param>
internal sealed record RunOutcome(bool IsFinished, string? Model, string HeldOutText, bool IsPreempted = false)
{
    public int ExitCode => IsFinished ? Cli.ExitCode.Success : IsPreempted ? Cli.ExitCode.Preempted : Cli.ExitCode.Interrupted;
}
