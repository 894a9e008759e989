using System.CommandLine;
using System.CommandLine.Parsing;
using System.Text.Json;
using System.Text.Json.Nodes;
using ZEngine.Training;

namespace ZEngine.Cli;

/// <summary>Everything that <c>train</c> can be told: each setting is a flag and, under the same name with _ for -, a key of the configuration file.</summary>
internal sealed class TrainSettings
{
    private const string DataKey = "data";
    private readonly List<(string Key, Option Option, Func<ParseResult, JsonNode?> Read)> _settings = [];

    public TrainSettings()
    {
        Data = new Argument<string[]>("data") { Description = "Text files, folders or patterns such as 'docs/**/*.md'; or one binary token file (.bin).", Arity = ArgumentArity.ZeroOrMore };
        Data.Validators.Add(RejectFlags);
        Config = new Option<string?>("--config") { Description = "JSON file of settings: the flags below without dashes, and \"data\". Flags given here win.", HelpName = "FILE" };
        IsResumed = new Option<bool>("--resume") { Description = "Go on with the run in the run folder, with its settings; ends with the bits of a run that was never stopped." };
        Out = Add("out", "runs/train", "The run folder: metrics.jsonl, loss.svg, checkpoints and the model.", "FOLDER");
        Model = Add("model", "small-hybrid", $"A preset ({ModelChoice.Presets}), a config.json for a fresh model, or a model folder to go on from.", "MODEL");
        Tokenizer = Add("tokenizer", "", "bytes, a tokenizer.json, or bpe:SIZE, which is learnt from the data. Default: the model folder's own, or bytes.", "TOKENIZER");
        DType = Add("dtype", "float32", "Type of the matrices: float32 or bfloat16.", "TYPE");
        DType.AcceptOnlyFromAmong("float32", "bfloat16");
        Device = Add("device", DeviceChoice.Cpu, DeviceChoice.Description, "NAME");
        Steps = Add("steps", 1000, "Optimizer steps.", least: 1);
        Batch = Add("batch", 8, "Sequences of a micro-batch.", least: 1);
        Length = Add("length", 256, "Tokens of a sequence.", least: 1);
        Accumulation = Add("accumulation", 1, "Micro-batches of a step, shared by all ranks.", least: 1);
        ShardOptimizer = Add("shard-optimizer", "no", "Whether ranks part the optimizer's state among them (ZeRO-1): yes or no; less memory, the same bits.", "CHOICE");
        ShardOptimizer.AcceptOnlyFromAmong("yes", "no");
        BucketBytes = Add("bucket-bytes", 0, "Bytes of gradients that ranks exchange at once; changes no bit. 0: from a measurement between the ranks.", least: 0);
        LearningRate = Add("learning-rate", 2e-3f, "The largest learning rate.");
        LearningRate.Aliases.Add("--lr");
        LearningRateFloor = Add("learning-rate-floor", 0f, "The smallest learning rate after warm-up.");
        Warmup = Add("warmup", 50, "Steps of warm-up.", least: 0);
        Schedule = Add("schedule", "cosine", $"How the learning rate goes on: {string.Join(", ", Schedules.Keys)}.", "NAME");
        Schedule.AcceptOnlyFromAmong([.. Schedules.Keys]);
        DecaySteps = Add("decay-steps", 0, "Steps of the fall at the end of the schedule warmup-stable-decay.", least: 0);
        WeightDecay = Add("weight-decay", 0.1f, "Decoupled weight decay of the matrices.");
        Clip = Add("clip", 1f, "Largest norm of the gradients; 0 for no limit.");
        Seed = Add("seed", 1UL, "Chooses the fresh weights and the order of the data.");
        EvaluationInterval = Add("evaluation-interval", 100, "Steps from one held-out loss to the next; 0 for none.", least: 0);
        EvaluationBatches = Add("evaluation-batches", 16, "Batches of a held-out loss.", least: 1);
        CheckpointInterval = Add("checkpoint-interval", 500, "Steps from one checkpoint to the next; 0 for the last alone.", least: 0);
        RollBackAfter = Add("roll-back-after", 3, "So many steps in a row without a finite loss, and the run goes back to the newest regular checkpoint and on with later data; 0 for never.", least: 0);
        BackgroundSave = Add("background-save", "yes", "Whether checkpoints are written while training goes on, from copies in memory: yes or no.", "CHOICE");
        BackgroundSave.AcceptOnlyFromAmong("yes", "no");
        KeepCheckpoints = Add("keep-checkpoints", 2, "How many of the newest checkpoints stay.", least: 1);
        HeldOutEvery = Add("held-out-every", 20, "Of so many blocks of the data one is held out.", least: 2);
        HeldOutBlock = Add("held-out-block", 8192, "Tokens of such a block.", least: 2);
    }

    public Argument<string[]> Data { get; }
    public Option<string?> Config { get; }
    public Option<bool> IsResumed { get; }
    public Option<string> Out { get; }
    public Option<string> Model { get; }
    public Option<string> Tokenizer { get; }
    public Option<string> DType { get; }
    public Option<string> Device { get; }
    public Option<int> Steps { get; }
    public Option<int> Batch { get; }
    public Option<int> Length { get; }
    public Option<int> Accumulation { get; }
    public Option<string> ShardOptimizer { get; }
    public Option<int> BucketBytes { get; }
    public Option<float> LearningRate { get; }
    public Option<float> LearningRateFloor { get; }
    public Option<int> Warmup { get; }
    public Option<string> Schedule { get; }
    public Option<int> DecaySteps { get; }
    public Option<float> WeightDecay { get; }
    public Option<float> Clip { get; }
    public Option<ulong> Seed { get; }
    public Option<int> EvaluationInterval { get; }
    public Option<int> EvaluationBatches { get; }
    public Option<int> CheckpointInterval { get; }
    public Option<int> RollBackAfter { get; }
    public Option<string> BackgroundSave { get; }
    public Option<int> KeepCheckpoints { get; }
    public Option<int> HeldOutEvery { get; }
    public Option<int> HeldOutBlock { get; }

    private static IReadOnlyDictionary<string, ScheduleKind> Schedules { get; } = new Dictionary<string, ScheduleKind>
    {
        ["cosine"] = ScheduleKind.Cosine, ["linear"] = ScheduleKind.Linear, ["constant"] = ScheduleKind.Constant, ["inverse-square-root"] = ScheduleKind.InverseSquareRoot,
        ["warmup-stable-decay"] = ScheduleKind.WarmupStableDecay, ["annealing"] = ScheduleKind.Annealing,
    };

    /// <summary>A misspelt flag would otherwise be taken for a file.</summary>
    public static void RejectFlags(ArgumentResult result)
    {
        if (result.Tokens.FirstOrDefault(token => token.Value.StartsWith('-')) is { } flag) result.AddError($"There is no flag {flag.Value}.");
    }

    public Command NewCommand(string name, string description)
    {
        var command = new Command(name, description) { Data, Config, IsResumed };
        foreach ((_, Option option, _) in _settings) command.Add(option);
        return command;
    }

    /// <summary>The same command line with the settings of a file added where it gives none itself.</summary>
    /// <param name="command">As made by <see cref="NewCommand"/>.</param>
    /// <param name="parse">The command line.</param>
    /// <param name="file">A JSON object.</param>
    /// <exception cref="UserError">The file is missing, is no JSON object, or has an unknown key or a wrong value.</exception>
    public ParseResult WithFile(Command command, ParseResult parse, string file)
    {
        List<string> data = [], flags = [];
        foreach ((string key, JsonNode? value) in ReadObject(file))
        {
            if (key == DataKey) data.AddRange(value is JsonArray list ? list.Select(item => Text(file, key, item)) : [Text(file, key, value)]);
            else if (_settings.FirstOrDefault(setting => setting.Key == key).Option is { } option) flags.AddRange([option.Name, Text(file, key, value)]);
            else throw new UserError(ExitCode.BadInput, $"{file}: \"{key}\" is no setting; the settings are data, {string.Join(", ", _settings.Select(setting => setting.Key))}.");
        }
        ParseResult alone = command.Parse([.. flags]);
        if (alone.Errors.Count > 0) throw new UserError(ExitCode.BadInput, $"{file}: {alone.Errors[0].Message}");

        List<string> merged = [.. parse.GetValue(Data) is { Length: > 0 } given ? given : data.ToArray()];
        if (parse.GetValue(IsResumed)) merged.Add(IsResumed.Name);
        foreach ((_, Option option, Func<ParseResult, JsonNode?> read) in _settings)
            foreach (ParseResult source in (ParseResult[])[parse, alone])
            {
                if (source.GetResult(option) is not { Implicit: false }) continue;
                merged.AddRange([option.Name, Text(file, option.Name, read(source))]);
                break;
            }
        ParseResult result = command.Parse(merged);
        CommandLine.RequireNoErrors(result);
        return result;
    }

    /// <summary>All settings as a configuration file.</summary>
    public JsonObject ToJson(ParseResult parse, IEnumerable<string> files)
    {
        var json = new JsonObject { [DataKey] = new JsonArray([.. files.Select(file => JsonValue.Create(file))]) };
        foreach ((string key, _, Func<ParseResult, JsonNode?> read) in _settings)
            if (key != "out") json[key] = read(parse);         // so that a run folder may be moved
        return json;
    }

    public TrainingOptions ToOptions(ParseResult parse) => new()
    {
        RunFolder = parse.GetRequiredValue(Out), Steps = parse.GetValue(Steps), Batch = parse.GetValue(Batch), Length = parse.GetValue(Length),
        Accumulation = parse.GetValue(Accumulation), IsOptimizerSharded = parse.GetValue(ShardOptimizer) == "yes", BucketBytes = parse.GetValue(BucketBytes), LearningRate = parse.GetValue(LearningRate), LearningRateFloor = parse.GetValue(LearningRateFloor),
        Warmup = Math.Min(parse.GetValue(Warmup), parse.GetValue(Steps)), Schedule = Schedules[parse.GetRequiredValue(Schedule)], DecaySteps = parse.GetValue(DecaySteps),
        WeightDecay = parse.GetValue(WeightDecay), Clip = parse.GetValue(Clip), Seed = parse.GetValue(Seed),
        EvaluationInterval = parse.GetValue(EvaluationInterval), EvaluationBatches = parse.GetValue(EvaluationBatches),
        CheckpointInterval = parse.GetValue(CheckpointInterval), KeepCheckpoints = parse.GetValue(KeepCheckpoints), RollBackAfterSkips = parse.GetValue(RollBackAfter), IsSaveInBackground = parse.GetValue(BackgroundSave) == "yes",
    };

    public DataSplit ToSplit(ParseResult parse) => new(parse.GetValue(HeldOutEvery), parse.GetValue(HeldOutBlock), parse.GetValue(Seed));

    private static JsonObject ReadObject(string file)
    {
        if (!File.Exists(file)) throw new UserError(ExitCode.BadInput, $"{file}: there is no such file.");
        try
        {
            return JsonNode.Parse(File.ReadAllBytes(file), documentOptions: new() { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true, AllowDuplicateProperties = false }) as JsonObject
                ?? throw new UserError(ExitCode.BadInput, $"{file}: must be a JSON object of settings.");
        }
        catch (JsonException e)
        {
            throw new UserError(ExitCode.BadInput, $"{file}: {e.Message}");
        }
    }

    private static string Text(string file, string key, JsonNode? value) => value?.GetValueKind() switch
    {
        JsonValueKind.String => value.GetValue<string>(),
        JsonValueKind.Number => value.ToJsonString(),
        _ => throw new UserError(ExitCode.BadInput, $"{file}: \"{key}\" must be a number or a text, got {value?.ToJsonString() ?? "null"}."),
    };

    private Option<int> Add(string name, int value, string description, int least)
    {
        Option<int> option = Add(name, value, description);
        option.Validators.Add(result =>
        {
            if (result.Tokens is [{ } token] && int.TryParse(token.Value, out int number) && number < least) result.AddError($"{option.Name} must be at least {least}, got {number}.");
        });
        return option;
    }

    private Option<T> Add<T>(string name, T value, string description, string? helpName = null)
    {
        var option = new Option<T>("--" + name) { Description = description, DefaultValueFactory = _ => value, HelpName = helpName ?? (typeof(T) == typeof(float) ? "NUMBER" : "COUNT") };
        _settings.Add((name.Replace('-', '_'), option, parse => JsonValue.Create(parse.GetValue(option))));
        return option;
    }
}
