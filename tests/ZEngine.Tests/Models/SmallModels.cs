using ZEngine.Models;
using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Models;

/// <summary>Random models of a few layers, in every variant that their configurations know.</summary>
internal static class SmallModels
{
    public static readonly Mamba2Config Mamba2 = new() { VocabularySize = 61, HiddenSize = 24, Layers = 2, Heads = 6, HeadDimension = 8, StateSize = 8, IsTied = true, InitializerRange = 0.2 };

    public static readonly Zamba2Config Zamba2 = new()
    {
        VocabularySize = 61, HiddenSize = 16, Layers = 5, HybridLayers = [1, 3], IntermediateSize = 24, MambaHeads = 4, MambaHeadDimension = 8, StateSize = 8,
        AttentionHeads = 4, KeyValueHeads = 4, AdapterRank = 3, HasAttentionAdapters = true, InitializerRange = 0.2,
    };

    public static readonly MambaConfig Mamba = new() { VocabularySize = 61, HiddenSize = 18, Layers = 3, InnerSize = 30, StateSize = 5, TimeStepRank = 3, InitializerRange = 0.2 };

    public static readonly LlamaConfig Llama = new() { VocabularySize = 61, HiddenSize = 24, IntermediateSize = 40, Layers = 3, Heads = 4, KeyValueHeads = 2, HeadDimension = 6, InitializerRange = 0.2 };

    public static readonly ZambaConfig Zamba = new()
    {
        VocabularySize = 61, HiddenSize = 16, Layers = 5, AttentionPeriod = 2, AttentionOffset = 1, IntermediateSize = 24, TimeStepRank = 2, StateSize = 6, AttentionHeads = 4, KeyValueHeads = 4,
        InitializerRange = 0.2,
    };

    public static readonly SambaConfig Samba = new()
    {
        VocabularySize = 61, HiddenSize = 24, IntermediateSize = 40, Layers = 4, Heads = 4, KeyValueHeads = 4, SlidingWindow = 7, StateSize = 5, TimeStepRank = 3, InitializerRange = 0.2,
    };

    private static readonly Dictionary<string, Func<LanguageModel>> s_all = new()
    {
        ["mamba2"] = () => new Mamba2(Mamba2),
        ["mamba2, two groups, biases, K 2, own head"] = () => new Mamba2(Mamba2 with { HiddenSize = 20, Heads = 4, HeadDimension = 10, StateSize = 5, Groups = 2, ConvKernel = 2, HasBias = true, IsTied = false, VocabularySize = 67 }),
        ["mamba2, odd sizes, K 3, limits"] = () => new Mamba2(Mamba2 with { HiddenSize = 21, Layers = 3, Heads = 3, HeadDimension = 7, StateSize = 3, Groups = 3, ConvKernel = 3, HasConvBias = false, TimeStepLimit = (0.01, 0.05) }),
        ["mamba"] = () => new Mamba(Mamba),
        ["falcon_mamba, biases, K 2, own head"] = () => new Mamba(Mamba with { InnerSize = 17, ConvKernel = 2, HasBias = true, HasConvBias = false, IsTied = false, ProjectionNormEpsilon = 1e-6 }),
        ["llama"] = () => new Llama(Llama),
        ["mistral, window, biases"] = () => new Llama(Llama with { HeadDimension = 10, SlidingWindow = 7, HasAttentionBias = true, HasMlpBias = true, IsTied = true }),
        ["zamba2, one block, attention adapters, rope"] = () => new Zamba2(Zamba2),
        ["zamba2, two blocks, no rope, K 3"] = () => new Zamba2(Zamba2 with { HybridLayers = [0, 2, 3], SharedBlocks = 2, MambaGroups = 2, ConvKernel = 3, HasAttentionAdapters = false, HasRope = false, KeyValueHeads = 2 }),
        ["zamba2, two blocks, odd sizes, K 2"] = () => new Zamba2(Zamba2 with
        {
            HiddenSize = 15, HybridLayers = [0, 1, 4], SharedBlocks = 2, IntermediateSize = 17, MambaHeads = 3, MambaHeadDimension = 10, StateSize = 7, MambaGroups = 3, ConvKernel = 2,
            AttentionHeads = 3, KeyValueHeads = 1, HasConvBias = false, TimeStepLimit = (0.001, 0.1),
        }),
        ["zamba"] = () => new Zamba(Zamba),
        ["zamba, three Mamba heads, biases, odd sizes, K 3"] = () => new Zamba(Zamba with
        {
            HiddenSize = 15, Layers = 6, AttentionPeriod = 3, AttentionOffset = 0, IntermediateSize = 17, MambaHeads = 3, ConvKernel = 3, StateSize = 3, AttentionHeads = 3, KeyValueHeads = 1, HasBias = true, HasConvBias = false,
        }),
        ["samba"] = () => new Samba(Samba),
        ["samba, grouped heads, one layer sees all, own head, no rope"] = () => new Samba(Samba with { KeyValueHeads = 2, MambaPeriod = 3, FullPeriod = 3, SlidingWindow = 4, HasRope = false, IsTied = false, ConvKernel = 2, Expand = 1 }),
    };

    public static TheoryData<string> Names => [.. s_all.Keys];

    /// <summary>A model in which no parameter is plain: norms and biases get noise too.</summary>
    public static LanguageModel New(string name, ulong seed = 1)
    {
        LanguageModel model = s_all[name]();
        Fill(model, seed);
        return model;
    }

    public static void Fill(LanguageModel model, ulong seed, DType dtype = DType.Float32)
    {
        model.Initialize(Device.Cpu, seed, dtype);
        var noise = new Noise(seed);
        foreach (Parameter parameter in model.Parameters)
            if (!parameter.IsMatrix) parameter.Value.CopyFrom<float>([.. parameter.Value.ToArray<float>().Select(value => value + 0.2f * (float)noise.Normal())]);
    }

    public static int[] Tokens(LanguageModel model, int count, ulong seed = 7)
    {
        var noise = new Noise(seed);
        return [.. Enumerable.Range(0, count).Select(_ => (int)(noise.Uniform() * model.VocabularySize))];
    }

    /// <summary>The logits [L, V] of a whole text.</summary>
    public static float[] Logits(LanguageModel model, int[] tokens)
    {
        using TensorScope scope = TensorScope.Enter();
        return model.Forward(Tensor.From<int>(tokens, [1, tokens.Length], Device.Cpu)).ToArray<float>();
    }

    public static ReadOnlySpan<float> Row(LanguageModel model, float[] logits, int row) => logits.AsSpan(row * model.VocabularySize, model.VocabularySize);

    /// <summary>Two ways to the same numbers, which differ in the order of their sums only.</summary>
    /// <remarks>
    /// A sum of n terms in another order moves by about √n · 2⁻²⁴ of its terms' size: 10⁻⁶ for the sums here (n about 100). Some twenty
    /// of them stand one behind the other, each passing on what the one before moved, at worst with one sign: 2·10⁻⁵ of the result's
    /// typical size. The bound leaves a factor of 2.5 for entries where large terms cancel.
    /// </remarks>
    public static void Same(string what, ReadOnlySpan<float> got, ReadOnlySpan<float> want, double share = 5e-5)
    {
        Assert.Equal(want.Length, got.Length);
        double square = 0, worst = 0;
        foreach (float value in want) square += (double)value * value;
        double rms = Math.Sqrt(square / Math.Max(1, want.Length));
        for (int i = 0; i < got.Length; i++) worst = double.IsNaN(got[i] - want[i]) ? double.NaN : Math.Max(worst, Math.Abs((double)got[i] - want[i]));
        if (!(worst <= share * rms)) Assert.Fail($"{what}: off by {worst:G3}, which is {worst / rms:G3} of the rms {rms:G3}, above {share:G3}.");
    }
}
