using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;
using ZEngine.Distributed;
using ZEngine.Emulator;
using ZEngine.Interop;

namespace ZEngine.Cli;

/// <summary>The verbs, and how errors become one line and an exit code.</summary>
internal static class CommandLine
{
    private const string Name = "zengine";

    /// <summary>Runs one command line; never throws.</summary>
    public static int Run(IReadOnlyList<string> args, Terminal terminal)
    {
        try
        {
            ParseResult parse = Root(terminal).Parse(args);
            if (parse.Action is ParseErrorAction or null) RequireNoErrors(parse);
            return parse.Invoke(new InvocationConfiguration { Output = terminal.Output, Error = terminal.Error, EnableDefaultExceptionHandler = false });
        }
        catch (Exception e)
        {
            (int code, string message) = Describe(e);
            if (!(Ranks.IsOfAll(e) && IsLaterRank())) terminal.Error.WriteLine(message == e.ToString() ? message : $"zengine: {message}");
            return code;
        }
    }

    /// <summary>Whether another rank says what all run into.</summary>
    private static bool IsLaterRank()
    {
        try
        {
            return LaunchEnvironment.Detect().Rank > 0;
        }
        catch (InvalidDataException)
        {
            return false;
        }
    }

    /// <summary>The exit code of an error and what is said of it.</summary>
    public static (int Code, string Message) Describe(Exception e) =>
        (Code(e), Environment.GetEnvironmentVariable("ZENGINE_TRACE") == "1" ? e.ToString() : Message(e));

    /// <exception cref="UserError">The arguments do not parse.</exception>
    public static void RequireNoErrors(ParseResult parse)
    {
        if (parse.Errors.Count == 0) return;
        string verb = parse.CommandResult.Command.Name is Name ? "" : parse.CommandResult.Command.Name + " ";
        throw new UserError(ExitCode.Usage, $"{OneLine(parse.Errors[0].Message)} See zengine {verb}--help.");
    }

    // Not a RootCommand: that one is called what the assembly is called.
    private static Command Root(Terminal terminal) => new(Name, $"Trains hybrid state-space and transformer models and lets them write.\n\n{ExitCode.Help}")
    {
        Train.Command(terminal), Generate.Command(terminal), Info.Command(terminal), Demo.Command(terminal), Launch.Command(terminal), Supervise.Command(terminal), BenchComm.Command(terminal), PackKernels.Command(terminal), new HelpOption(), new VersionOption(),
    };

    private static int Code(Exception e) => e switch
    {
        UserError error => error.ExitCode,
        CommunicatorException => ExitCode.Lost,
        InvalidDataException or WorldMismatchException or FileNotFoundException or DirectoryNotFoundException => ExitCode.BadInput,
        ArgumentException => ExitCode.Usage,
        OperationCanceledException => ExitCode.Interrupted,
        _ => ExitCode.Failure,
    };

    private static string Message(Exception e) => e switch
    {
        OperationCanceledException => "interrupted.",
        WorldMismatchException => e.Message,                   // a table
        EmulatorFaultException or NvrtcException => e.Message, // a report of several lines, for who wrote the kernel
        CudaException or CublasLtException => OneLine(e.Message),
        // The runtime appends the name of the C# parameter, which means nothing here.
        ArgumentException { ParamName: not null } argument => OneLine(argument.Message.Split(" (Parameter '")[0]),
        UserError or IOException or UnauthorizedAccessException or InvalidDataException or ArgumentException or InvalidOperationException or NotFiniteNumberException or NativeLibraryException => OneLine(e.Message),
        OutOfMemoryException => "not enough memory; take a smaller batch, length or model.",
        _ => $"{e.GetType().Name}: {OneLine(e.Message)} This is a fault of the program; ZENGINE_TRACE=1 shows where.",
    };

    private static string OneLine(string text) => text.ReplaceLineEndings(" ").Trim();
}
