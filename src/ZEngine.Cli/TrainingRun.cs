using System.CommandLine;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using ZEngine.Cuda;
using ZEngine.Distributed;
using ZEngine.Models;
using ZEngine.Training;

namespace ZEngine.Cli;

/// <summary>A training run from its settings to the exported model.</summary>
/// <remarks>
/// The run folder holds <c>run.json</c>, the settings, as <c>--config</c> takes them; <c>tokenizer.json</c>; the trainer's
/// <c>metrics.jsonl</c> and <c>checkpoints</c>; at the end <c>loss.svg</c>,
/// the folder <c>model</c> and, last, <c>DONE</c>; with several ranks, their <c>logs</c>.
/// </remarks>
internal sealed class TrainingRun
{
    public const string ModelFolder = "model";
    private const string SettingsFile = "run.json", PictureFile = "loss.svg", TokenizerFile = "tokenizer.json", DoneFile = "DONE", EndOfText = "<|endoftext|>";
    private const int PromptTokens = 160;

    private readonly TrainingOptions _options;
    private readonly DataSplit _split;
    private readonly IReadOnlyList<string> _files;
    private readonly JsonObject _settings;
    private readonly bool _isResumed;
    private readonly string _model, _tokenizer, _device;
    private readonly DType _dtype;

    private TrainingRun(TrainSettings settings, ParseResult parse, IReadOnlyList<string> files)
    {
        (_options, _split, _files) = (settings.ToOptions(parse), settings.ToSplit(parse), files);
        (_model, _tokenizer, _isResumed) = (parse.GetRequiredValue(settings.Model), parse.GetRequiredValue(settings.Tokenizer), parse.GetValue(settings.IsResumed));
        _device = parse.GetRequiredValue(settings.Device);
        _dtype = parse.GetRequiredValue(settings.DType) == "bfloat16" ? DType.BFloat16 : DType.Float32;
        _settings = settings.ToJson(parse, files);
    }

    private string Folder => _options.RunFolder;

    /// <summary>Reads the settings, those of a file or of the run to go on with among them, and finds the data; nothing is written yet.</summary>
    /// <exception cref="UserError">Something is missing or wrong.</exception>
    public static TrainingRun Open(TrainSettings settings, Command command, ParseResult parse)
    {
        string? config = parse.GetValue(settings.Config);
        bool isResumed = parse.GetValue(settings.IsResumed);
        if (config is not null && isResumed) throw new UserError(Cli.ExitCode.Usage, "--resume takes the settings of the run folder; leave --config away.");
        if (config is not null) parse = settings.WithFile(command, parse, config);
        string folder = parse.GetRequiredValue(settings.Out), stored = Path.Combine(folder, SettingsFile);
        if (isResumed)
        {
            if (!File.Exists(stored)) throw new UserError(Cli.ExitCode.Usage, $"{folder}: there is no run to resume; leave --resume away, or name the run folder with --out.");
            parse = settings.WithFile(command, parse, stored);
        }
        else if (IsFirstRank() && (File.Exists(stored) || File.Exists(Trainer.MetricsPath(folder))))
            throw new UserError(Cli.ExitCode.Usage, $"{folder}: the folder holds a run already; add --resume to go on with it, or choose another folder with --out.");
        string[] names = parse.GetValue(settings.Data) ?? [];
        if (names.Length == 0) throw new UserError(Cli.ExitCode.Usage, "Name the text files to train on: zengine train FILES.");
        return new TrainingRun(settings, parse, DataFiles.Find(names));
    }

    /// <summary>Trains and exports; prints what happens.</summary>
    public RunOutcome Execute(Terminal terminal, Ranks ranks)
    {
        Device device = ranks.OpenDevice(_device);
        terminal = ranks.OpenLog(Folder);
        if (ranks.IsFirst && File.Exists(Path.Combine(Folder, DoneFile))) File.Delete(Path.Combine(Folder, DoneFile));
        Tokenizer tokenizer = OpenTokenizer();
        using TokenSource tokens = OpenTokens(tokenizer);
        var train = new TokenWindows(tokens, _options.Length, _options.Seed, DataPart.Train, _split);
        var heldOut = new TokenWindows(tokens, _options.Length, _options.Seed, DataPart.HeldOut, _split);
        using LanguageModel model = ModelChoice.Open(_model, tokenizer.VocabularySize, _options.Seed, _dtype, device);
        if (ranks.World.Size > 1) WorldAgreement.RequireSame(ranks.World, ("settings", Hash(_settings.ToJsonString())), ("run folder", Path.GetFullPath(Folder)), ("model", Hash(model.Config.Text)), ("data", Hash(train.Fingerprint)), ("dtype", _dtype.ToString()));
        var trainer = new Trainer(model, train, heldOut, ranks.Tuned(_options, model.Device, terminal), world: ranks.World);

        double entropy = heldOut.UnigramEntropy();
        terminal.Line($"{_files.Count} files, {tokens.Count:N0} tokens, of which {heldOut.EpochLength * _options.Length:N0} are held out; {model.GetType().Name} of {model.ParameterCount:N0} parameters; {(device == Device.Cpu ? $"{CpuDevice.Threads} threads" : device is CudaDevice cuda ? $"{device}, {cuda.Description}" : $"{device}")}{(ranks.World.Size == 1 ? "" : $" on each of {ranks.World.Size} ranks over {ranks.World.Name}")}.");
        terminal.Line($"{_options.Steps} steps of {_options.Accumulation * _options.Batch} x {_options.Length} tokens into {Folder}.");
        if (ranks.World.Size > 1) terminal.Line($"Ranks: {trainer.Layout}; gradients are summed over {trainer.Layout.DescribeGroups(GradientClass.Dense)}.");
        if (!trainer.HasBitsOfOneRank) terminal.Line($"{ranks.World.Size} ranks share {(_options.Accumulation == 1 ? "one micro-batch" : $"{_options.Accumulation} micro-batches")} of {_options.Batch} sequences: close to a run on one rank, but not its bits; those take a power of two of micro-batches a rank (--accumulation {ranks.World.Size}).");
        if (ranks.IsFirst) WriteSettings(tokenizer);
        TrainingResult result = new RunProgress(terminal, _options.Steps).Run(trainer, terminal.Interruption);
        bool isPreempted = ranks.World.Gather(terminal.IsPreempted() ? 1 : 0).Any(asked => asked != 0);
        if (ranks.IsFirst) DrawCurve(entropy);
        Summarise(terminal, result, entropy, tokenizer is ByteTokenizer);
        string prompt = Prompt(tokens, heldOut, tokenizer);
        if (!result.IsFinished)
        {
            terminal.Line($"Stopped after step {result.Step}; {result.Checkpoint} is saved. Go on with: zengine train --resume --out {Folder}");
            return new RunOutcome(false, null, prompt, isPreempted);
        }
        string exported = Path.Combine(Folder, ModelFolder);
        if (ranks.IsFirst) Export(model, tokenizer, exported);
        ranks.World.Barrier();
        // Last of all: who finds it knows that every rank has come to the end.
        if (ranks.IsFirst) File.WriteAllText(Path.Combine(Folder, DoneFile), FormattableString.Invariant($"step {result.Step}\n"));
        terminal.Line($"Loss curve: {Path.Combine(Folder, PictureFile)}. Model: {exported}. Let it write: zengine generate {exported} \"…\"");
        return new RunOutcome(true, exported, prompt);
    }

    private static void Export(LanguageModel model, Tokenizer tokenizer, string folder)
    {
        model.Save(folder);
        tokenizer.Save(folder);
    }

    /// <summary>The folder is the first rank's: when the others look, it may have begun to write.</summary>
    private static bool IsFirstRank() => LaunchEnvironment.Detect().Rank == 0;

    private static string Hash(string text) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)))[..16];

    private Tokenizer OpenTokenizer()
    {
        string stored = Path.Combine(Folder, TokenizerFile);
        string choice = _tokenizer.Length > 0 ? _tokenizer : ModelChoice.HasWeights(_model) ? _model : "bytes";
        if (choice == "bytes") return new ByteTokenizer();
        if (_isResumed && File.Exists(stored)) return Tokenizer.Load(stored);
        if (!choice.StartsWith("bpe:", StringComparison.Ordinal)) return File.Exists(choice) || Directory.Exists(choice)
            ? choice == _model ? ModelChoice.TokenizerOf(choice) : Tokenizer.Load(choice)
            : throw new UserError(Cli.ExitCode.BadInput, $"{choice}: no such tokenizer; name bytes, bpe:SIZE or a tokenizer.json.");
        if (!int.TryParse(choice.AsSpan(4), out int size) || size < 257) throw new UserError(Cli.ExitCode.Usage, $"--tokenizer {choice}: SIZE must be a number of at least 257, such as bpe:4096.");
        return BpeTrainer.Train(_files.Select(file => File.ReadAllText(file)), size, [EndOfText]);
    }

    private TokenSource OpenTokens(Tokenizer tokenizer)
    {
        if (_files is [var file] && Path.GetExtension(file) == ".bin") return BinaryTokens.Open(file);
        return tokenizer is ByteTokenizer ? TextTokens.FromFiles(_files)
            : TextTokens.FromFiles(_files, text => tokenizer.Encode(text, addSpecialTokens: false), tokenizer.VocabularySize, tokenizer.EosToken);
    }

    private void WriteSettings(Tokenizer tokenizer)
    {
        Directory.CreateDirectory(Folder);
        if (_isResumed) return;
        tokenizer.Save(Path.Combine(Folder, TokenizerFile));
        File.WriteAllText(Path.Combine(Folder, SettingsFile), _settings.ToJsonString(new JsonSerializerOptions { WriteIndented = true }) + "\n");
    }

    private void DrawCurve(double entropy)
    {
        string metrics = Trainer.MetricsPath(Folder);
        (var train, var heldOut) = MetricsFile.ReadLosses(metrics);
        if (train.Count + heldOut.Count > 0) LossCurve.Write(Path.Combine(Folder, PictureFile), train, heldOut, entropy, $"Loss of {_model}, {_files.Count} files");
    }

    private static void Summarise(Terminal terminal, TrainingResult result, double entropy, bool isBytes)
    {
        if (result.HeldOutLoss is { } loss)
        {
            terminal.Line($"Held-out loss:         {loss:F4} nats per token{(isBytes ? FormattableString.Invariant($" = {loss / Math.Log(2):F3} bits per byte") : "")}");
            terminal.Line($"Held-out {(isBytes ? "byte" : "token")}-unigram entropy: {entropy:F4} nats{(isBytes ? FormattableString.Invariant($" = {entropy / Math.Log(2):F3} bits per byte") : "")}");
        }
        if (result.SkippedSteps > 0) terminal.Line($"{result.SkippedSteps} steps were skipped because loss or gradient was not finite.");
    }

    private static string Prompt(TokenSource tokens, TokenWindows heldOut, Tokenizer tokenizer)
    {
        var prompt = new int[Math.Min(PromptTokens, heldOut.Length)];
        tokens.Read(heldOut.StartOf(0), prompt);
        var decoder = tokenizer.NewStreamingDecoder();
        var text = new StringBuilder();
        foreach (int token in prompt) text.Append(decoder.Push(token));       // without Flush: no half character at the end
        return text.ToString().TrimStart('\uFFFD');
    }
}
