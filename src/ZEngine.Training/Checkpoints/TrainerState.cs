using System.Text.Json;

namespace ZEngine.Training;

/// <summary>What a run needs beside model and optimizer to go on: <c>trainer.json</c>.</summary>
internal sealed record TrainerState
{
    public const string FileName = "trainer.json";

    public required IReadOnlyList<KeyValuePair<string, string>> Options { get; init; }
    public required string Data { get; init; }
    public long Step { get; init; }
    public long Position { get; init; }
    public long Tokens { get; init; }
    public long SkippedSteps { get; init; }
    public long SkipsInARow { get; init; }

    /// <summary>The newest regular checkpoint at which no steps were being skipped: where the run goes back to; -1 for none.</summary>
    public long GoodStep { get; init; } = -1;

    /// <summary>How often the run went back to <see cref="GoodStep"/>.</summary>
    public long RollBacks { get; init; }

    /// <summary>How ranks shared the work; for people, since any number of ranks takes a checkpoint up.</summary>
    public Layout Layout { get; init; } = new(1);

    public long EvaluatedStep { get; init; } = -1;
    public double? HeldOutLoss { get; init; }
    public double? BestLoss { get; init; }
    public long MetricsBytes { get; init; }
    public TimeSpan Elapsed { get; init; }

    public void Write(string path) => Durable.Write(path, stream =>
    {
        using var json = new Utf8JsonWriter(stream, new JsonWriterOptions { Indented = true });
        json.WriteStartObject();
        json.WriteNumber("version", 1);
        json.WriteNumber("step", Step);
        json.WriteNumber("data_position", Position);
        json.WriteNumber("tokens", Tokens);
        json.WriteNumber("skipped_steps", SkippedSteps);
        json.WriteNumber("skips_in_a_row", SkipsInARow);
        json.WriteNumber("good_step", GoodStep);
        json.WriteNumber("roll_backs", RollBacks);
        WriteLayout(json);
        json.WriteNumber("evaluated_step", EvaluatedStep);
        WriteNullable(json, "held_out_loss", HeldOutLoss);
        WriteNullable(json, "best_loss", BestLoss);
        json.WriteNumber("metrics_bytes", MetricsBytes);
        json.WriteNumber("elapsed_ticks", Elapsed.Ticks);
        json.WriteString("data", Data);
        json.WriteString("options_hash", TrainingOptions.Hash(Options));
        json.WriteStartObject("options");
        foreach ((string name, string value) in Options) json.WriteString(name, value);
        json.WriteEndObject();
        json.WriteEndObject();
    });

    public static TrainerState Read(string path)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(path));
            JsonElement root = document.RootElement;
            if (root.GetProperty("version").GetInt32() is not 1 and int version) throw new InvalidDataException($"{path}: is of version {version}; this program reads version 1.");
            var state = new TrainerState
            {
                Step = root.GetProperty("step").GetInt64(),
                Position = root.GetProperty("data_position").GetInt64(),
                Tokens = root.GetProperty("tokens").GetInt64(),
                SkippedSteps = root.GetProperty("skipped_steps").GetInt64(),
                SkipsInARow = root.GetProperty("skips_in_a_row").GetInt64(),
                GoodStep = ReadOr(root, "good_step", -1),
                RollBacks = ReadOr(root, "roll_backs", 0),
                EvaluatedStep = root.GetProperty("evaluated_step").GetInt64(),
                HeldOutLoss = ReadNullable(root, "held_out_loss"),
                BestLoss = ReadNullable(root, "best_loss"),
                MetricsBytes = root.GetProperty("metrics_bytes").GetInt64(),
                Elapsed = TimeSpan.FromTicks(root.GetProperty("elapsed_ticks").GetInt64()),
                Data = root.GetProperty("data").GetString()!,
                Options = [.. root.GetProperty("options").EnumerateObject().Select(option => new KeyValuePair<string, string>(option.Name, option.Value.GetString()!))],
            };
            if (root.GetProperty("options_hash").GetString() != TrainingOptions.Hash(state.Options)) throw new InvalidDataException($"{path}: options and options_hash disagree.");
            return state;
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException or FormatException)
        {
            throw new InvalidDataException($"{path}: not the state of a trainer ({e.Message.ReplaceLineEndings(" ")}).", e);
        }
    }

    /// <summary>The sizes and the groups over which each class of gradients is summed.</summary>
    private void WriteLayout(Utf8JsonWriter json)
    {
        json.WriteStartObject("layout");
        (string Name, int Size)[] sizes = [("data", Layout.Data), ("context", Layout.Context), ("expert", Layout.Expert), ("tensor", Layout.Tensor)];
        foreach ((string name, int size) in sizes) json.WriteNumber(name, size);
        json.WriteStartObject("gradient_groups");
        foreach (GradientClass gradient in Layout.ReduceAxes.Keys) json.WriteString(gradient.ToString(), Layout.DescribeGroups(gradient));
        json.WriteEndObject();
        json.WriteEndObject();
    }

    /// <summary>A number that older checkpoints do not have.</summary>
    private static long ReadOr(JsonElement root, string name, long otherwise) => root.TryGetProperty(name, out JsonElement value) ? value.GetInt64() : otherwise;

    private static void WriteNullable(Utf8JsonWriter json, string name, double? value)
    {
        if (value is { } number && double.IsFinite(number)) json.WriteNumber(name, number);
        else json.WriteNull(name);
    }

    private static double? ReadNullable(JsonElement root, string name) => root.GetProperty(name) is { ValueKind: not JsonValueKind.Null } value ? value.GetDouble() : null;
}
