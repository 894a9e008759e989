using System.CommandLine;

namespace ZEngine.Cli;

/// <summary><c>zengine train</c></summary>
internal static class Train
{
    public static Command Command(Terminal terminal)
    {
        var settings = new TrainSettings();
        Command command = settings.NewCommand("train", "Trains a model on text, records the run, and exports it as a Hugging Face folder.");
        command.SetAction(parse => TrainingRun.Open(settings, command, parse).Execute(terminal).ExitCode);
        return command;
    }
}
