namespace ZEngine.Cli;

/// <summary>What the process says to its caller; listed in the README and in <c>zengine --help</c>.</summary>
internal static class ExitCode
{
    public const int Success = 0;
    public const int Failure = 1;
    public const int Usage = 2;
    public const int BadInput = 3;
    public const int Preempted = 75;
    public const int Lost = 86;
    public const int Interrupted = 130;

    public const string Help = """
        Exit codes:
          0    done
          1    failed while running: disk full, run folder in use, loss not finite, …
          2    wrong usage: unknown verb or flag, value out of range
          3    an input file is missing or damaged, or does not fit the rest
          75   stopped by SIGUSR1; a training run has saved a checkpoint and goes on with --resume
          86   a rank was lost or stuck; the newest checkpoint is intact
          130  interrupted by Ctrl+C or SIGTERM; a training run has saved a checkpoint and goes on with --resume
        ZENGINE_TRACE=1 shows where an error came from, ZENGINE_THREADS=N sets the number of threads.
        """;
}
