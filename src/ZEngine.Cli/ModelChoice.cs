using ZEngine.Models;

namespace ZEngine.Cli;

/// <summary>What <c>--model</c> can name: a preset, a configuration, a folder with weights.</summary>
internal static class ModelChoice
{
    public const string Presets = "tiny-hybrid, small-hybrid, small-mamba2";

    /// <summary>Makes a fresh model, or loads one; always writable.</summary>
    /// <param name="name">A preset, a <c>config.json</c>, or a folder with one.</param>
    /// <param name="vocabulary">V of a preset.</param>
    /// <param name="seed">Of a fresh model's weights.</param>
    /// <param name="dtype">Type of the matrices.</param>
    /// <param name="device">Where the weights are to be.</param>
    /// <exception cref="UserError">There is no such model.</exception>
    public static LanguageModel Open(string name, int vocabulary, ulong seed, DType dtype, Device device)
    {
        if (Preset(name, vocabulary) is { } preset)
        {
            preset.Initialize(device, seed, dtype);
            return preset;
        }
        string config = ConfigOf(name);
        if (HasWeights(name))
        {
            LanguageModel stored = LanguageModel.Load(name, device, dtype);
            RequireFinite(stored, name);
            return stored;
        }
        LanguageModel model = LanguageModel.Create(ModelConfigFile.Open(config));
        model.Initialize(device, seed, dtype);
        return model;
    }

    /// <summary>Reads every weight; disposes the model where one is no number.</summary>
    /// <exception cref="UserError">A weight is NaN or infinite.</exception>
    public static void RequireFinite(LanguageModel model, string name)
    {
        IReadOnlyList<string> broken = model.FindNonFinite();
        if (broken.Count == 0) return;
        model.Dispose();
        throw new UserError(ExitCode.BadInput,
            $"{name}: NaN or infinite numbers in {string.Join(", ", broken.Take(4))}{(broken.Count > 4 ? $" and {broken.Count - 4} other tensors" : "")}; the file is damaged, or the training that wrote it went wrong.");
    }

    /// <summary>The structure of a model, without memory.</summary>
    public static LanguageModel Declare(string name) => Preset(name, 256) ?? LanguageModel.Create(ModelConfigFile.Open(ConfigOf(name)));

    /// <summary>Whether a name is one of <see cref="Presets"/>.</summary>
    public static bool IsPreset(string name) => Presets.Split(", ").Contains(name);

    /// <summary>Whether a name is a folder with weights.</summary>
    public static bool HasWeights(string name) => Directory.Exists(name) && Directory.EnumerateFiles(name, "*.safetensors").Any();

    /// <summary>The folder that holds the weights: the one named, or the exported model of a run folder.</summary>
    /// <exception cref="UserError">There is none.</exception>
    public static string FolderOf(string name)
    {
        foreach (string folder in (string[])[name, Path.Combine(name, TrainingRun.ModelFolder)])
            if (HasWeights(folder) && File.Exists(Path.Combine(folder, ModelConfigFile.FileName))) return folder;
        throw new UserError(ExitCode.BadInput, $"{name}: there is no model here; name a folder with {ModelConfigFile.FileName} and model.safetensors.");
    }

    /// <summary>The tokenizer of a model folder; of a checkpoint, the run's.</summary>
    /// <exception cref="UserError">There is none.</exception>
    public static Tokenizer TokenizerOf(string folder)
    {
        string full = Path.GetFullPath(folder);
        foreach (string place in (string[])[full, Path.Combine(full, "..", "..")])
            if (File.Exists(Path.Combine(place, "tokenizer.json"))) return Tokenizer.Load(Path.Combine(place, "tokenizer.json"));
        throw new UserError(ExitCode.BadInput, $"{folder}: there is no tokenizer.json here; name one with --tokenizer.");
    }

    private static string ConfigOf(string name)
    {
        string config = Directory.Exists(name) ? Path.Combine(name, ModelConfigFile.FileName) : name;
        return File.Exists(config) ? config : throw new UserError(ExitCode.BadInput, $"{name}: no such model; name a folder, a {ModelConfigFile.FileName}, or one of {Presets}.");
    }

    private static LanguageModel? Preset(string name, int vocabulary) => name switch
    {
        "tiny-hybrid" => new Zamba2(Hybrid(vocabulary, hidden: 32, layers: 3, hybrid: [1], headDimension: 16, state: 16, attentionHeads: 2, rank: 8)),
        "small-hybrid" => new Zamba2(Hybrid(vocabulary, hidden: 192, layers: 6, hybrid: [1, 4], headDimension: 64, state: 32, attentionHeads: 6, rank: 16)),
        "small-mamba2" => new Mamba2(new Mamba2Config { VocabularySize = vocabulary, HiddenSize = 192, Layers = 8, Heads = 6, StateSize = 32, IsTied = true, RescalesResidual = true }),
        _ => null,
    };

    private static Zamba2Config Hybrid(int vocabulary, int hidden, int layers, int[] hybrid, int headDimension, int state, int attentionHeads, int rank) => new()
    {
        VocabularySize = vocabulary, HiddenSize = hidden, Layers = layers, HybridLayers = hybrid, IntermediateSize = 4 * hidden,
        MambaHeads = 2 * hidden / headDimension, MambaHeadDimension = headDimension, StateSize = state,
        AttentionHeads = attentionHeads, KeyValueHeads = attentionHeads, AdapterRank = rank,
    };
}
