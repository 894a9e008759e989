using System.CommandLine;
using ZEngine.Distributed;

namespace ZEngine.Cli;

/// <summary><c>zengine launch</c></summary>
internal static class Launch
{
    public static Command Command(Terminal terminal)
    {
        var size = new Option<int>("-np", "--ranks") { Description = "The number of ranks.", Required = true, HelpName = "COUNT" };
        size.Validators.Add(result =>
        {
            if (result.Tokens is [{ } token] && int.TryParse(token.Value, out int number) && number is < 1 or > 1024) result.AddError($"-np must be from 1 to 1024, got {number}.");
        });
        var verb = new Argument<string[]>("command") { Description = "A verb of zengine and its arguments, such as train FILES.", Arity = ArgumentArity.OneOrMore };
        var command = new Command("launch", "Starts a verb on several ranks of this machine, without MPI; mpirun does the same with it.") { size, verb };
        command.TreatUnmatchedTokensAsErrors = false;
        command.SetAction(parse =>
        {
            string[] given = [.. parse.GetValue(verb) ?? [], .. parse.UnmatchedTokens];
            return Launcher.Run([.. Self(), .. given], parse.GetValue(size), line => terminal.Error.WriteLine($"zengine: {line}"));
        });
        return command;
    }

    /// <summary>The command that started this program.</summary>
    public static string[] Self()
    {
        string program = Environment.ProcessPath ?? throw new InvalidOperationException("launch: the path of this program is not known.");
        return Path.GetFileNameWithoutExtension(program) == "dotnet" ? [program, "exec", Path.Combine(AppContext.BaseDirectory, "ZEngine.Cli.dll")] : [program];
    }
}
