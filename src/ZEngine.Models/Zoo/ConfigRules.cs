using System.Runtime.CompilerServices;

namespace ZEngine.Models;

/// <summary>Rules that the configurations share.</summary>
internal static class ConfigRules
{
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

    /// <summary>Marks keys as known that do not change what the model computes: hints for kernels, or for training code elsewhere.</summary>
    public static void Ignore(ModelConfigFile file, params ReadOnlySpan<string> keys)
    {
        foreach (string key in keys) file.MarkRead(key);
        foreach (string key in (ReadOnlySpan<string>)["architectures", "dtype", "torch_dtype", "transformers_version", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id", "_name_or_path"])
            file.MarkRead(key);
    }
}
