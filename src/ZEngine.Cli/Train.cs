using System.CommandLine;

namespace ZEngine.Cli;

/// <summary><c>zengine train</c></summary>
internal static class Train
{
    public static Command Command(Terminal terminal)
    {
        var settings = new TrainSettings();
        Command command = settings.NewCommand("train", "Trains a model on text, records the run, and exports it as a Hugging Face folder.");
        command.SetAction(parse =>
        {
            TrainingRun run = TrainingRun.Open(settings, command, parse);
            return Ranks.Run(terminal, ranks => run.Execute(terminal, ranks).ExitCode);
        });
        return command;
    }
}
