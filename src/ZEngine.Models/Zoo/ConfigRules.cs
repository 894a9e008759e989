using System.Runtime.CompilerServices;

namespace ZEngine.Models;

/// <summary>Rules that the configurations share.</summary>
internal static class ConfigRules
{
    /// <summary>No model has more layers; a file that says so is damaged, and must not fill the memory.</summary>
    public const int MaxLayers = 10_000;

    /// <summary>No width is larger: products of two fit a long.</summary>
    public const int MaxWidth = 1 << 24;

    /// <exception cref="ArgumentException">The rule is broken.</exception>
    public static void Require(bool holds, string message)
    {
        if (!holds) throw new ArgumentException(message);
    }

    /// <summary>The file that a configuration was read from, byte for byte, while it says the same as the configuration; a copy with other values gets a file of its own.</summary>
    public static ModelConfigFile FileOf<T>(ModelConfigFile? file, T config, Func<ModelConfigFile, T> read, Func<T, ModelConfigFile> create)
    {
        ModelConfigFile made = create(config);
        return file is not null && create(read(file)).Text == made.Text ? file : made;
    }

    public static T NotNull<T>(T? value, [CallerArgumentExpression(nameof(value))] string name = "") where T : class
    {
        ArgumentNullException.ThrowIfNull(value, name);
        return value;
    }

    /// <summary>A text that has one value that is supported, which is also its default.</summary>
    public static void RequireText(ModelConfigFile file, string key, string only)
    {
        string value = file.String(key, only);
        if (value != only) throw file.Error(key, $"must be \"{only}\", got \"{value}\"");
    }

    /// <summary>R of Mamba's projection of Δ: a number, or "auto" for a sixteenth of the hidden size.</summary>
    public static int TimeStepRank(ModelConfigFile file, string key, int hidden)
    {
        if (file.Has(key) && file.Kind(key) != System.Text.Json.JsonValueKind.String) return file.Int(key, max: MaxWidth);
        if (file.String(key, "auto") is not "auto" and var other) throw file.Error(key, $"must be a number or \"auto\", got \"{other}\"");
        return (hidden + 15) / 16;
    }

    /// <summary>A value that has one that is supported.</summary>
    public static void RequireValue<T>(ModelConfigFile file, string key, T value, T only) where T : IEquatable<T>
    {
        if (!value.Equals(only)) throw file.Error(key, $"must be {only.ToString()!.ToLowerInvariant()}, got {value.ToString()!.ToLowerInvariant()}");
    }

    /// <summary>Marks keys as known that do not change what the model computes: hints for kernels, or for training code elsewhere.</summary>
    public static void Ignore(ModelConfigFile file, params ReadOnlySpan<string> keys)
    {
        foreach (string key in keys) file.MarkRead(key);
        foreach (string key in (ReadOnlySpan<string>)["architectures", "dtype", "torch_dtype", "transformers_version", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id", "_name_or_path"])
            file.MarkRead(key);
    }
}
