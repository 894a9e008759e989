namespace ZEngine.Models;

/// <summary>Zamba2: Mamba-2 layers, some of which first run a transformer block that they share, each use with adapters of its own.</summary>
/// <remarks>
/// Use J of the shared blocks, at layer i: u = RMS([h; e₀]), a = Attention(u), f = GeGLU(RMS(a)), t = Linear_i(f), h ← h + Mamba2(RMS(h + t)),
/// with e₀ the token embeddings; there is no residual inside the block. Glorioso et al. 2024, arXiv:2411.15242.
/// </remarks>
public sealed class Zamba2 : SharedBlockModel
{
    /// <summary>Declares the structure, without memory.</summary>
    public Zamba2(Zamba2Config config) : this(ConfigRules.NotNull(config), config.Validate()) { }

    private Zamba2(Zamba2Config config, Mamba2MixerOptions mixer) : base(
        config.ToFile(), config, config.HybridLayers, config.SharedBlocks, config.HasRope ? config.Rotary : null, ("Mamba-2 layer", "adapter and projection of a use", "shared_transformer"),
        () => new Mamba2Mixer(mixer), block => new SharedTransformer(config, block)) { }

    /// <summary>Makes a fresh model.</summary>
    public Zamba2(Zamba2Config config, Device device, ulong seed, DType dtype = DType.Float32) : this(config) => Initialize(device, seed, dtype);
}
