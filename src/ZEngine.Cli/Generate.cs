using System.CommandLine;
using System.Diagnostics;
using ZEngine.Models;

namespace ZEngine.Cli;

/// <summary><c>zengine generate</c></summary>
internal static class Generate
{
    public static Command Command(Terminal terminal)
    {
        var model = new Argument<string>("model") { Description = "A model folder, a run folder, or a checkpoint." };
        var prompt = new Argument<string?>("prompt") { Description = "The text to go on from; without it, --prompt-file or the standard input.", Arity = ArgumentArity.ZeroOrOne };
        var promptFile = new Option<string?>("--prompt-file") { Description = "A UTF-8 file that holds the prompt.", HelpName = "FILE" };
        var tokenizer = new Option<string?>("--tokenizer") { Description = "A tokenizer.json; default: the model's own.", HelpName = "FILE" };
        var tokens = new Option<int>("--max-tokens") { Description = "Tokens at most.", DefaultValueFactory = _ => 256, HelpName = "COUNT" };
        var temperature = new Option<float>("--temperature") { Description = "0 takes the likeliest token always.", DefaultValueFactory = _ => 0.8f, HelpName = "NUMBER" };
        var topK = new Option<int>("--top-k") { Description = "Only so many of the likeliest tokens; 0 for all.", HelpName = "COUNT" };
        var topP = new Option<float>("--top-p") { Description = "Only the likeliest tokens that together have this probability.", DefaultValueFactory = _ => 0.95f, HelpName = "NUMBER" };
        var minP = new Option<float>("--min-p") { Description = "Only tokens at least this share as likely as the likeliest.", HelpName = "NUMBER" };
        var penalty = new Option<float>("--repetition-penalty") { Description = "1 for none.", DefaultValueFactory = _ => 1f, HelpName = "NUMBER" };
        var seed = new Option<ulong>("--seed") { Description = "The same seed, prompt and model give the same text.", DefaultValueFactory = _ => 1UL, HelpName = "COUNT" };
        Option<string> device = DeviceChoice.Option();
        var command = new Command("generate", "Lets a model go on with a text; the text comes as it is made.") { model, prompt, promptFile, tokenizer, tokens, temperature, topK, topP, minP, penalty, seed, device };
        command.SetAction(parse =>
        {
            var sampling = new SamplingOptions
            {
                MaxNewTokens = parse.GetValue(tokens), Temperature = parse.GetValue(temperature), TopK = parse.GetValue(topK), TopP = parse.GetValue(topP),
                MinP = parse.GetValue(minP), RepetitionPenalty = parse.GetValue(penalty), Seed = parse.GetValue(seed),
            };
            string folder = ModelChoice.FolderOf(parse.GetRequiredValue(model));
            return Ranks.Run(terminal, ranks =>
            {
                Device on = ranks.OpenDevice(parse.GetValue(device)!);
                // The first rank alone has the standard input, and speaks.
                string text = ranks.World.GatherText(ranks.IsFirst ? ReadPrompt(terminal, parse.GetValue(prompt), parse.GetValue(promptFile)) : "")[0];
                Terminal own = ranks.IsFirst ? terminal : terminal with { Output = TextWriter.Null, Error = TextWriter.Null };
                return Write(own, folder, on, parse.GetValue(tokenizer), text, sampling, ranks.NewSharding());
            });
        });
        return command;
    }

    /// <summary>Writes the continuation of a prompt to the output and the speed to the error stream; with ranks, each keeps a part of keys and values.</summary>
    public static int Write(Terminal terminal, string folder, Device device, string? tokenizerPath, string prompt, SamplingOptions sampling, KeyValueSharding? sharding = null)
    {
        Tokenizer tokenizer = tokenizerPath is null ? ModelChoice.TokenizerOf(folder) : Tokenizer.Load(tokenizerPath);
        int[] tokens = tokenizer.Encode(prompt);
        if (tokens.Length == 0 && tokenizer.BosToken is { } bos) tokens = [bos];
        if (tokens.Length == 0) throw new UserError(ExitCode.Usage, "The prompt is empty; give at least one character.");
        using LanguageModel model = LanguageModel.Load(folder, device, isWritable: false);
        if (tokens.Max() >= model.VocabularySize) throw new UserError(ExitCode.BadInput, $"{folder}: the tokenizer gives token {tokens.Max()}, the model has {model.VocabularySize}; they do not belong together.");
        if (tokenizer.EosToken is { } eos) sampling = sampling with { StopTokens = [eos] };

        using Session session = model.NewSession(batch: 1, maxLength: tokens.Length + (long)sampling.MaxNewTokens, sharding);
        StreamingDecoder decoder = tokenizer.NewStreamingDecoder();
        var clock = Stopwatch.StartNew();
        TimeSpan first = default;
        int count = 0;
        try
        {
            foreach (int token in session.Generate(tokens, sampling, terminal.Interruption))
            {
                if (count++ == 0) first = clock.Elapsed;
                terminal.Output.Write(decoder.Push(token));
                terminal.Output.Flush();
            }
        }
        catch (NotFiniteNumberException)
        {
            // Weights are mapped and not looked at before: a start reads only what it computes with.
            ModelChoice.RequireFinite(model, folder);
            throw;
        }
        terminal.Output.WriteLine(decoder.Flush());
        double seconds = (clock.Elapsed - first).TotalSeconds;
        terminal.Note($"{tokens.Length} tokens read in {first.TotalSeconds:F2} s; {count} written{(count > 1 ? FormattableString.Invariant($", {(count - 1) / Math.Max(seconds, 1e-9):F1} tokens/s") : "")}.");
        bool isInterrupted = terminal.Interruption.IsCancellationRequested;
        if (sharding is not null) isInterrupted = sharding.World.Gather(isInterrupted ? 1 : 0).Any(asked => asked != 0);
        return isInterrupted ? ExitCode.Interrupted : ExitCode.Success;
    }

    private static string ReadPrompt(Terminal terminal, string? prompt, string? file)
    {
        if (prompt is not null && file is not null) throw new UserError(ExitCode.Usage, "Give the prompt as text or with --prompt-file, not both.");
        if (prompt is not null) return prompt;
        if (file is not null) return File.Exists(file) ? File.ReadAllText(file) : throw new UserError(ExitCode.BadInput, $"{file}: there is no such file.");
        if (!terminal.IsInputRedirected) throw new UserError(ExitCode.Usage, "Give a prompt: zengine generate MODEL \"…\", or --prompt-file, or a pipe.");
        return terminal.Input.ReadToEnd();
    }
}
