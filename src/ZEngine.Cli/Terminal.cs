using Spectre.Console;

namespace ZEngine.Cli;

/// <summary>Where a command reads and writes, and who may interrupt it.</summary>
internal sealed record Terminal(TextReader Input, TextWriter Output, TextWriter Error, CancellationToken Interruption)
{
    private const int RedirectedWidth = 120;

    /// <summary>Whether the interruption was a request to save and stop (SIGUSR1).</summary>
    public Func<bool> IsPreempted { get; init; } = () => false;

    public bool IsInputRedirected { get; init; } = true;

    public bool IsOutputRedirected { get; init; } = true;

    /// <summary>Writes a line of output.</summary>
    public void Line(FormattableString text) => Output.WriteLine(FormattableString.Invariant(text));

    /// <summary>Writes a line that is no result: a notice, a speed.</summary>
    public void Note(FormattableString text) => Error.WriteLine(FormattableString.Invariant(text));

    /// <summary>The output for tables and bars: coloured and alive on a terminal, plain text elsewhere.</summary>
    public IAnsiConsole Console()
    {
        var settings = new AnsiConsoleSettings { Out = new AnsiConsoleOutput(Output) };
        if (IsOutputRedirected) (settings.Ansi, settings.ColorSystem, settings.Interactive) = (AnsiSupport.No, ColorSystemSupport.NoColors, InteractionSupport.No);
        IAnsiConsole console = AnsiConsole.Create(settings);
        if (IsOutputRedirected) console.Profile.Width = RedirectedWidth;
        return console;
    }
}
