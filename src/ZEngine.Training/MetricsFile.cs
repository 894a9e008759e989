using System.Buffers;
using System.Text.Json;

namespace ZEngine.Training;

/// <summary>The record of a run: a line of JSON for every step and for every held-out loss.</summary>
public sealed class MetricsFile : IDisposable
{
    private readonly FileStream _stream;
    private readonly ArrayBufferWriter<byte> _line = new(512);

    private MetricsFile(FileStream stream) => _stream = stream;

    /// <summary>Bytes written so far.</summary>
    public long Bytes => _stream.Position;

    /// <summary>Opens a file to go on behind its first <paramref name="bytes"/>; what stands there is cut off.</summary>
    /// <param name="path">The file; made where it is missing.</param>
    /// <param name="bytes">Where the run goes on.</param>
    /// <param name="missing">Bytes that the file should have had and has not.</param>
    public static MetricsFile Open(string path, long bytes, out long missing)
    {
        var stream = new FileStream(path, FileMode.OpenOrCreate, FileAccess.Write, FileShare.Read, bufferSize: 0);
        missing = Math.Max(0, bytes - stream.Length);
        stream.SetLength(Math.Min(bytes, stream.Length));
        stream.Seek(0, SeekOrigin.End);
        return new MetricsFile(stream);
    }

    /// <summary>The losses of a record, for a picture. Lines that are no JSON, such as a torn last one, are left out.</summary>
    public static (List<(long Step, double Loss)> Train, List<(long Step, double Loss)> HeldOut) ReadLosses(string path)
    {
        var train = new List<(long, double)>();
        var heldOut = new List<(long, double)>();
        foreach (string line in File.ReadLines(path))
        {
            try
            {
                using JsonDocument document = JsonDocument.Parse(line);
                long step = document.RootElement.GetProperty("step").GetInt64();
                if (document.RootElement.TryGetProperty("loss", out JsonElement loss) && loss.ValueKind == JsonValueKind.Number) train.Add((step, loss.GetDouble()));
                if (document.RootElement.TryGetProperty("held_out_loss", out loss) && loss.ValueKind == JsonValueKind.Number) heldOut.Add((step, loss.GetDouble()));
            }
            catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException or FormatException)
            {
                continue;
            }
        }
        return (train, heldOut);
    }

    /// <summary>Appends a step's line.</summary>
    public void Append(StepReport report)
    {
        ArgumentNullException.ThrowIfNull(report);
        Append(json =>
        {
            json.WriteNumber("step", report.Step);
            WriteFinite(json, "loss", report.Loss);
            WriteFinite(json, "gradient_norm", report.GradientNorm);
            json.WriteNumber("learning_rate", report.LearningRate);
            json.WriteNumber("tokens", report.Tokens);
            json.WriteBoolean("skipped", report.IsSkipped);
            json.WriteNumber("skipped_steps", report.SkippedSteps);
            WriteFinite(json, "tokens_per_second", Math.Round(report.TokensPerSecond, 1));
            json.WriteNumber("elapsed_seconds", Math.Round(report.Elapsed.TotalSeconds, 3));
        });
    }

    /// <summary>Appends a held-out loss.</summary>
    public void Append(EvaluationReport report)
    {
        ArgumentNullException.ThrowIfNull(report);
        Append(json =>
        {
            json.WriteNumber("step", report.Step);
            WriteFinite(json, "held_out_loss", report.Loss);
            json.WriteBoolean("best", report.IsBest);
        });
    }

    /// <summary>Appends that the run went back.</summary>
    /// <param name="from">The step it had come to.</param>
    /// <param name="to">The step it goes on from.</param>
    public void AppendRollBack(long from, long to) => Append(json =>
    {
        json.WriteNumber("step", to);
        json.WriteNumber("rolled_back_from", from);
    });

    /// <summary>Puts the lines on disk.</summary>
    public void Flush() => _stream.Flush(flushToDisk: true);

    /// <inheritdoc/>
    public void Dispose() => _stream.Dispose();

    /// <summary>One write per line, straight to the system: a process that is killed loses no line.</summary>
    private void Append(Action<Utf8JsonWriter> write)
    {
        _line.ResetWrittenCount();
        using (var json = new Utf8JsonWriter(_line))
        {
            json.WriteStartObject();
            write(json);
            json.WriteEndObject();
        }
        _line.Write("\n"u8);
        try
        {
            _stream.Write(_line.WrittenSpan);
        }
        catch (IOException e)
        {
            throw new IOException($"{_stream.Name}: the record could not be written ({e.Message.ReplaceLineEndings(" ")}); make room, then resume from the newest checkpoint.", e);
        }
    }

    private static void WriteFinite(Utf8JsonWriter json, string name, double value)
    {
        if (double.IsFinite(value)) json.WriteNumber(name, value);
        else json.WriteNull(name);
    }

    private static void WriteFinite(Utf8JsonWriter json, string name, float value)
    {
        if (float.IsFinite(value)) json.WriteNumber(name, value);
        else json.WriteNull(name);
    }
}
