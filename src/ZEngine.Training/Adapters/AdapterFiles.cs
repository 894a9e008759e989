using System.Globalization;
using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>An adapter's folder: <c>adapter_config.json</c> as PEFT writes it, and <c>adapter_model.safetensors</c>.</summary>
internal static class AdapterFiles
{
    public const string ConfigFile = "adapter_config.json", ModelFile = "adapter_model.safetensors";
    public const string DownSuffix = ".lora_A.weight", UpSuffix = ".lora_B.weight", KernelDownSuffix = ".lora_kernel_A", KernelUpSuffix = ".lora_kernel_B", VectorSuffix = ".lora_delta";

    private const string Prefix = "base_model.model.";

    private static readonly string[] s_suffixes = [DownSuffix, UpSuffix, KernelDownSuffix, KernelUpSuffix, VectorSuffix];

    public static IEnumerable<SafetensorsTensor> Tensors(LoraAdapter adapter) =>
        adapter.Parameters.Select(parameter => ParameterFiles.ToSafetensors(Prefix + parameter.Name, parameter.Value));

    /// <param name="tensors">Those of the adapter, or copies of them.</param>
    public static void Write(string folder, LoraAdapter adapter, IReadOnlyCollection<SafetensorsTensor> tensors)
    {
        Directory.CreateDirectory(folder);
        SafetensorsWriter.Write(Path.Combine(folder, ModelFile), tensors, [new("format", "pt")]);
        LoraOptions options = adapter.Options;
        ModelConfigFile.Create(
        [
            new("peft_type", "LORA"), new("task_type", "CAUSAL_LM"), new("base_model_name_or_path", null), new("inference_mode", true),
            new("r", options.Rank), new("lora_alpha", options.Alpha), new("lora_dropout", 0.0), new("bias", "none"), new("fan_in_fan_out", false),
            new("init_lora_weights", true), new("modules_to_save", null), new("use_rslora", false), new("use_dora", false),
            new("target_modules", (options.Targets ?? [.. adapter.Changes.Select(change => LoraTargets.Stem(change.Parameter.Name))]).ToArray()),
        ]).Save(Path.Combine(folder, ConfigFile));
    }

    public static LoraOptions ReadOptions(string folder)
    {
        ModelConfigFile config = ModelConfigFile.Open(Path.Combine(folder, ConfigFile));
        if (config.String("peft_type") is not "LORA" and var type) throw config.Error("peft_type", $"must be LORA, got {type}");
        if (config.String("bias", "none") is not "none" and var bias) throw config.Error("bias", $"must be none, got {bias}");
        foreach (string key in (ReadOnlySpan<string>)["fan_in_fan_out", "use_rslora", "use_dora"])
            if (config.Bool(key, false)) throw config.Error(key, "must be false");
        foreach (string key in (ReadOnlySpan<string>)["rank_pattern", "alpha_pattern"])
            if (config.ObjectOrNull(key) is { Keys.Count: > 0 }) throw config.Error(key, "must be empty: one rank and one alpha for all");
        foreach (string key in (ReadOnlySpan<string>)["modules_to_save", "layers_to_transform", "trainable_token_indices", "target_parameters"])
            if (config.Has(key) && !(config.Kind(key) == System.Text.Json.JsonValueKind.Array && config.StringList(key).Length == 0)) throw config.Error(key, "must be null");
        bool isList = config.Kind("target_modules") == System.Text.Json.JsonValueKind.Array;
        var options = new LoraOptions { Rank = config.Int("r"), Alpha = (float)config.Float("lora_alpha"), Targets = isList && config.StringList("target_modules") is { Length: > 0 } targets ? targets : null };
        if (!(options.Alpha > 0)) throw config.Error("lora_alpha", $"must be a positive number, got {options.Alpha.ToString(CultureInfo.InvariantCulture)}");
        return options;
    }

    /// <summary>The parameters for which a folder holds a change.</summary>
    public static IEnumerable<Parameter> Covered(string folder, LanguageModel model)
    {
        string path = Path.Combine(folder, ModelFile);
        using SafetensorsFile file = SafetensorsFile.Open(path, isWritable: false);
        var stems = model.Parameters.ToDictionary(parameter => LoraTargets.Stem(parameter.Name), StringComparer.Ordinal);
        var found = new HashSet<Parameter>();
        foreach (SafetensorsEntry entry in file.Entries)
        {
            string? suffix = s_suffixes.FirstOrDefault(suffix => entry.Name.EndsWith(suffix, StringComparison.Ordinal));
            if (suffix is null || !entry.Name.StartsWith(Prefix, StringComparison.Ordinal) || !stems.TryGetValue(entry.Name[Prefix.Length..^suffix.Length], out Parameter? parameter))
                throw new InvalidDataException($"{path}: tensor {entry} is no change of a parameter of {model.GetType().Name}. It is the adapter of another model.");
            found.Add(parameter);
        }
        if (found.Count == 0) throw new InvalidDataException($"{path}: holds no change.");
        return model.Parameters.Where(found.Contains);
    }

    /// <summary>Overwrites the adapter's values with those of a folder, exactly its tensors; a failed check changes nothing.</summary>
    public static void ReadValues(string folder, LoraAdapter adapter)
    {
        LoraOptions options = ReadOptions(folder);
        if (options.Rank != adapter.Options.Rank || options.Alpha != adapter.Options.Alpha)
            throw new InvalidDataException($"{Path.Combine(folder, ConfigFile)}: has rank {options.Rank} and alpha {options.Alpha}, the adapter has rank {adapter.Options.Rank} and alpha {adapter.Options.Alpha}.");
        string path = Path.Combine(folder, ModelFile);
        using SafetensorsFile file = SafetensorsFile.Open(path, isWritable: false);
        var entries = file.Entries.ToDictionary(entry => entry.Name, StringComparer.Ordinal);
        foreach (Parameter parameter in adapter.Parameters)
        {
            if (!entries.Remove(Prefix + parameter.Name, out SafetensorsEntry? entry)) throw new InvalidDataException($"{path}: tensor '{Prefix + parameter.Name}' {Text(parameter)} is missing.");
            if (entry.DType is not { IsFloat: true } || !parameter.Shape.SequenceEqual(entry.Shape)) throw new InvalidDataException($"{path}: tensor {entry}, but the adapter has it as {Text(parameter)}. It is the adapter of another model or of another rank.");
        }
        if (entries.Count > 0) throw new InvalidDataException($"{path}: tensor {entries.Values.First()} is not part of the adapter.");
        foreach (Parameter parameter in adapter.Parameters)
        {
            file.TryGet(Prefix + parameter.Name, out SafetensorsEntry? entry);
            using Tensor stored = TensorScope.Release(Tensor.Empty(entry!.Shape, entry.DType!.Value, parameter.Value.Device));
            ParameterFiles.Copy(file, entry, stored);
            Ops.Copy(stored, parameter.Value);
        }
    }

    private static string Text(Parameter parameter) => $"[{string.Join(", ", parameter.Shape.ToArray())}]";
}
