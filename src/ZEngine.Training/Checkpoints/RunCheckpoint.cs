using System.Globalization;
using System.Text.Json;
using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>The files of a trainer's checkpoint: a Hugging Face folder or an adapter's, the optimizer's state and <c>trainer.json</c>.</summary>
internal static class RunCheckpoint
{
    private const string OptimizerFile = "optimizer.safetensors", OptimizerParts = "optimizer-*-of-*.safetensors";

    /// <summary>Copies what one rank of a world writes, as it is now: the optimizer's state is in parts where it was sharded, all else is rank 0's.</summary>
    /// <param name="copies">Keeps the copies; must live until the result was called.</param>
    /// <returns>Writes the files into a folder, on any thread.</returns>
    public static Action<string> Prepare(TensorCopies copies, TrainedModel model, AdamW optimizer, TrainerState state, Communicator world, bool isSharded)
    {
        Action<string>? writeOptimizer = isSharded || world.Rank == 0 ? optimizer.PrepareSave(copies) : null, writeModel = world.Rank == 0 ? model.PrepareSave(copies) : null;
        (int rank, int size) = (world.Rank, world.Size);
        return folder =>
        {
            writeOptimizer?.Invoke(Path.Combine(folder, isSharded ? PartName(rank, size) : OptimizerFile));
            if (writeModel is null) return;
            writeModel(folder);
            state.Write(Path.Combine(folder, TrainerState.FileName));
        };
    }

    private static string PartName(int rank, int size) => string.Create(CultureInfo.InvariantCulture, $"optimizer-{rank:D5}-of-{size:D5}.safetensors");

    /// <summary>The files that hold the optimizer's state: one, or one of each rank that wrote it.</summary>
    private static string[] OptimizerFiles(string folder)
    {
        string whole = Path.Combine(folder, OptimizerFile);
        string[] parts = [.. Directory.GetFiles(folder, OptimizerParts).Order(StringComparer.Ordinal)];
        if (parts.Length == 0) return [whole];
        if (File.Exists(whole) || !parts.Select(part => Path.GetFileName(part)).SequenceEqual(Enumerable.Range(0, parts.Length).Select(rank => PartName(rank, parts.Length))))
            throw new InvalidDataException($"{folder}: the {parts.Length} files of the optimizer's state are not those of one save.");
        return parts;
    }

    /// <summary>Brings a checkpoint's weights and state into a live model and optimizer.</summary>
    /// <param name="folder">A checkpoint that was verified.</param>
    /// <param name="own">Options and data of the run that goes on.</param>
    /// <exception cref="InvalidDataException">The checkpoint is of another model, configuration, data or options; one line that names the difference.</exception>
    public static TrainerState Read(string folder, TrainedModel model, AdamW optimizer, TrainerState own, bool acceptChanges)
    {
        TrainerState state = TrainerState.Read(Path.Combine(folder, TrainerState.FileName));
        if (!acceptChanges) RequireSameRun(folder, state, own);
        RequireSameConfig(Path.Combine(folder, ModelConfigFile.FileName), model.Model.Config);
        model.Read(folder);
        optimizer.Load(OptimizerFiles(folder));
        return state;
    }

    private static void RequireSameRun(string folder, TrainerState state, TrainerState run)
    {
        const string Advice = "Give the old value, take a new run folder, or accept changes (AcceptChanges).";
        var own = run.Options.ToDictionary(StringComparer.Ordinal);
        foreach ((string name, string value) in state.Options)
            if (!own.Remove(name, out string? now) || now != value) throw new InvalidDataException($"{folder}: was trained with {name} {value}, now it is {now ?? "unknown"}. {Advice}");
        foreach (string name in own.Keys) throw new InvalidDataException($"{folder}: was trained by a program without the option {name}. {Advice}");
        if (state.Data != run.Data) throw new InvalidDataException($"{folder}: was trained on other data: {state.Data}; now it is {run.Data}. {Advice}");
    }

    private static void RequireSameConfig(string path, ModelConfigFile own)
    {
        string text = ModelConfigFile.Open(path).Text;
        if (text == own.Text) return;
        try
        {
            using JsonDocument document = JsonDocument.Parse(text), ownDocument = JsonDocument.Parse(own.Text);
            var values = ownDocument.RootElement.EnumerateObject().ToDictionary(value => value.Name, value => value.Value.GetRawText(), StringComparer.Ordinal);
            foreach (JsonProperty value in document.RootElement.EnumerateObject())
                if (!values.Remove(value.Name, out string? now) || now != value.Value.GetRawText())
                    throw new InvalidDataException($"{path}: {value.Name} is {value.Value.GetRawText()} in the checkpoint, {now ?? "absent"} in the model. It is the checkpoint of another model.");
            foreach (string name in values.Keys) throw new InvalidDataException($"{path}: {name} is absent in the checkpoint, {values[name]} in the model. It is the checkpoint of another model.");
        }
        catch (JsonException)
        {
            throw new InvalidDataException($"{path}: differs from the configuration of the model. It is the checkpoint of another model.");
        }
    }
}
