using ZEngine.Models;

namespace ZEngine.Tests.Training;

/// <summary>Fresh models of every kind with 31 classes, with weights large enough that gradients stand above rounding.</summary>
internal static class SmallModels
{
    public const int Vocabulary = 31;

    public static LanguageModel New(string kind, DType dtype = DType.Float32, ulong seed = 3) => kind switch
    {
        "mamba2" => new Mamba2(
            new Mamba2Config { VocabularySize = Vocabulary, HiddenSize = 16, Layers = 2, Heads = 4, HeadDimension = 8, StateSize = 8, HasBias = true, InitializerRange = 0.3 }, Device.Cpu, seed, dtype),
        "zamba2" => new Zamba2(
            new Zamba2Config
            {
                VocabularySize = Vocabulary, HiddenSize = 16, Layers = 3, HybridLayers = [1, 2], IntermediateSize = 24, MambaHeads = 4, MambaHeadDimension = 8,
                StateSize = 8, AttentionHeads = 4, KeyValueHeads = 4, AdapterRank = 4, InitializerRange = 0.3,
            },
            Device.Cpu, seed, dtype),
        _ => new Llama(
            new LlamaConfig
            {
                VocabularySize = Vocabulary, HiddenSize = 16, IntermediateSize = 24, Layers = 2, Heads = 4, KeyValueHeads = 2, HeadDimension = 4, InitializerRange = 0.3,
            },
            Device.Cpu, seed, dtype),
    };

    /// <summary>Every name that an adapter can be put on.</summary>
    public static string[] Targets(string kind) => kind switch
    {
        "mamba2" => ["in_proj", "in_proj.bias", "out_proj", "conv1d", "conv1d.bias", "A_log", "D", "dt_bias", "norm", "norm_f", "lm_head", "embeddings"],
        "zamba2" => ["in_proj", "out_proj", "conv1d", "A_log", "D", "dt_bias", "q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "gate_up_proj_adapter_list", "down_proj", "linear", "input_layernorm", "embed_tokens"],
        _ => ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "input_layernorm", "lm_head", "embed_tokens"],
    };

    public static int[] Tokens(int count, ulong seed = 1) => [.. Enumerable.Range(0, count).Select(i => (int)new RandomStream(seed).Below(i, Vocabulary))];
}
