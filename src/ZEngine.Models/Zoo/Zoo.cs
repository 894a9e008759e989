namespace ZEngine.Models;

/// <summary>The architectures, by the <c>model_type</c> of their configuration.</summary>
internal static class Zoo
{
    public static LanguageModel Create(ModelConfigFile config)
    {
        ArgumentNullException.ThrowIfNull(config);
        try
        {
            return Build(config);
        }
        catch (Exception e) when (e is ArgumentException or OverflowException)
        {
            throw WeightErrors.Invalid(config.Path, WeightErrors.Line(e.Message), e);
        }
    }

    private static LanguageModel Build(ModelConfigFile config) =>
        config.String("model_type") switch
        {
            "mamba" or "falcon_mamba" => new Mamba(MambaConfig.Read(config)),
            "mamba2" => new Mamba2(Mamba2Config.Read(config)),
            "llama" or "mistral" => new Llama(LlamaConfig.Read(config)),
            "mixtral" => new Mixtral(MixtralConfig.Read(config)),
            "samba" => new Samba(SambaConfig.Read(config)),
            "zamba" => new Zamba(ZambaConfig.Read(config)),
            "zamba2" => new Zamba2(Zamba2Config.Read(config)),
            var other => throw config.Error("model_type", $"must be one of falcon_mamba, llama, mamba, mamba2, mistral, mixtral, samba, zamba, zamba2, got \"{other}\""),
        };
}
