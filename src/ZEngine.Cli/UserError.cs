namespace ZEngine.Cli;

/// <summary>Something that the user can put right: one line that says how, and the exit code.</summary>
internal sealed class UserError(int exitCode, string message) : Exception(message)
{
    public int ExitCode { get; } = exitCode;
}
