using System.CommandLine;
using System.Globalization;
using ZEngine.Models;

namespace ZEngine.Cli;

/// <summary><c>zengine demo</c>: a training run with everything chosen, and a continuation.</summary>
internal static class Demo
{
    /// <summary>About three minutes on two cores.</summary>
    private const int DefaultSteps = 1300;

    /// <summary>Sequences of a step: one micro-batch, or as many of one sequence where a launcher started the demo, so that ranks can share them and any number has the same bits.</summary>
    private const int Sequences = 4;

    private const int ContinuationTokens = 400;

    public static Command Command(Terminal terminal)
    {
        var files = new Argument<string[]>("data") { Description = "Text files, folders or patterns; without them, the repository's own sources and documents.", Arity = ArgumentArity.ZeroOrMore };
        files.Validators.Add(TrainSettings.RejectFlags);
        var steps = new Option<int>("--steps") { Description = "Optimizer steps; the default takes about three minutes on two cores.", DefaultValueFactory = _ => DefaultSteps, HelpName = "COUNT" };
        var folder = new Option<string?>("--out") { Description = "The run folder; default: runs/demo, or the first of runs/demo-2, runs/demo-3, … that is free.", HelpName = "FOLDER" };
        var seed = new Option<ulong>("--seed") { Description = "Chooses the fresh weights, the order of the data and the text.", DefaultValueFactory = _ => 1UL, HelpName = "COUNT" };
        Option<string> device = DeviceChoice.Option();
        var command = new Command("demo", "Trains a small hybrid model on text for about three minutes and lets it write.") { files, steps, folder, seed, device };
        command.SetAction(parse => Ranks.Run(terminal, ranks =>
        {
            // One folder for all ranks: that of the first.
            string run = ranks.World.GatherText(parse.GetValue(folder) ?? FreeFolder())[0];
            return Run(terminal, ranks, parse.GetValue(files) ?? [], parse.GetValue(steps), run, parse.GetValue(seed), parse.GetValue(device)!);
        }));
        return command;
    }

    private static int Run(Terminal terminal, Ranks ranks, string[] names, int steps, string folder, ulong seed, string device)
    {
        IReadOnlyList<string> files = names.Length > 0 ? names : DataFiles.OfRepository();
        int accumulation = ranks.IsLaunched ? (Sequences + ranks.World.Size - 1) / ranks.World.Size * ranks.World.Size : 1;
        string[] flags =
        [
            "--model", "small-hybrid", "--tokenizer", "bytes", "--steps", Text(steps), "--batch", Text(ranks.IsLaunched ? 1 : Sequences), "--accumulation", Text(accumulation), "--length", "256", "--learning-rate", "0.003", "--warmup", "50",
            "--evaluation-interval", Text(Math.Max(1, steps / 9)), "--evaluation-batches", "32", "--checkpoint-interval", Text(Math.Max(1, steps / 2)), "--seed", Text(seed), "--device", device, "--out", folder,
        ];
        if (ranks.IsFirst) terminal.Line($"zengine train {string.Join(' ', flags)} {(names.Length > 0 ? string.Join(' ', names) : "(this repository)")}");
        var settings = new TrainSettings();
        Command train = settings.NewCommand("train", "");
        ParseResult parse = train.Parse([.. flags, .. files]);
        CommandLine.RequireNoErrors(parse);
        RunOutcome outcome = TrainingRun.Open(settings, train, parse).Execute(terminal, ranks);
        if (!outcome.IsFinished || !ranks.IsFirst) return outcome.ExitCode;

        terminal.Line($"\nA held-out text begins, and the model goes on at the mark:\n");
        terminal.Output.Write($"{outcome.HeldOutText}»");
        return Generate.Write(terminal, outcome.Model!, ranks.Device, null, outcome.HeldOutText, new SamplingOptions { MaxNewTokens = ContinuationTokens, Temperature = 0.8f, TopP = 0.95f, Seed = seed });
    }

    private static string FreeFolder()
    {
        string folder = Path.Combine("runs", "demo");
        for (int number = 2; Directory.Exists(folder); number++) folder = Path.Combine("runs", string.Create(CultureInfo.InvariantCulture, $"demo-{number}"));
        return folder;
    }

    private static string Text(IFormattable value) => value.ToString(null, CultureInfo.InvariantCulture);
}
