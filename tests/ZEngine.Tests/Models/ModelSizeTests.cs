using System.Diagnostics;
using ZEngine.Models;

namespace ZEngine.Tests.Models;

/// <summary>Published sizes, built without memory, and what a model says of its parts.</summary>
public sealed class ModelSizeTests
{
    [Theory]
    [InlineData(768, 24, 128_989_632)]
    [InlineData(1024, 48, 368_346_624)]
    [InlineData(1536, 48, 780_161_280)]
    [InlineData(2048, 48, 1_343_757_312)]
    [InlineData(2560, 64, 2_702_599_680)]
    public void Mamba2_has_the_published_number_of_parameters(int hidden, int layers, long parameters)
    {
        using var model = new Mamba2(new Mamba2Config { VocabularySize = 50288, HiddenSize = hidden, Layers = layers, Heads = hidden / 32, IsTied = true });
        Assert.Equal(parameters, model.ParameterCount);
        Assert.Equal(parameters, model.Parts.Sum(part => part.Parameters));
    }

    [Theory]
    [InlineData(768, 24, 129_135_360)]
    [InlineData(1024, 48, 371_516_416)]
    [InlineData(1536, 48, 793_204_224)]
    [InlineData(2048, 48, 1_372_178_432)]
    [InlineData(2560, 64, 2_768_345_600)]
    public void Mamba_has_the_published_number_of_parameters(int hidden, int layers, long parameters)
    {
        using var model = new Mamba(new MambaConfig { VocabularySize = 50280, HiddenSize = hidden, Layers = layers, InnerSize = 2 * hidden, TimeStepRank = hidden / 16 });
        Assert.Equal(parameters, model.ParameterCount);
        Assert.Equal(parameters, model.Parts.Sum(part => part.Parameters));
    }

    [Theory]
    [InlineData(32000, 4096, 11008, 32, 32, 32, 128, false, 6_738_415_616)]
    [InlineData(128256, 4096, 14336, 32, 32, 8, 128, false, 8_030_261_248)]
    [InlineData(128256, 2048, 8192, 16, 32, 8, 64, true, 1_235_814_400)]
    [InlineData(128256, 3072, 8192, 28, 24, 8, 128, true, 3_212_749_824)]
    [InlineData(128256, 8192, 28672, 80, 64, 8, 128, false, 70_553_706_496)]
    public void Llama_has_the_published_number_of_parameters(int vocabulary, int hidden, int mlp, int layers, int heads, int keyHeads, int headDimension, bool isTied, long parameters)
    {
        using var model = new Llama(new LlamaConfig
        {
            VocabularySize = vocabulary, HiddenSize = hidden, IntermediateSize = mlp, Layers = layers, Heads = heads, KeyValueHeads = keyHeads, HeadDimension = headDimension, IsTied = isTied,
        });
        Assert.Equal(parameters, model.ParameterCount);
        Assert.Equal(parameters, model.Parts.Sum(part => part.Parameters));
    }

    [Fact]
    public void Codestral_Mamba_is_what_the_defaults_of_the_configuration_describe()
    {
        using LanguageModel model = LanguageModel.Create(ModelConfigFile.Parse("""{"model_type": "mamba2"}"""u8));
        Assert.Equal(7_285_403_648, model.ParameterCount);
    }

    [Theory]
    [InlineData("1.2B", 1_215_064_704)]
    [InlineData("2.7B", 2_662_214_560)]
    [InlineData("7B", 7_356_749_648)]
    public void Zamba2_has_the_published_number_of_parameters(string size, long parameters)
    {
        using var model = new Zamba2(Zamba2Sizes(size));
        Assert.Equal(parameters, model.ParameterCount);
        Assert.Equal(parameters, model.Parts.Sum(part => part.Parameters));
        Assert.All(model.Parameters, parameter => Assert.False(parameter.IsMaterialized));
    }

    [Fact]
    public void Zamba_has_the_published_number_of_parameters()
    {
        using LanguageModel model = LanguageModel.Create(ModelConfigFile.Parse("""{"model_type": "zamba"}"""u8));
        Assert.Equal(7_232_490_496, model.ParameterCount);
        Assert.Equal(7_232_490_496, model.Parts.Sum(part => part.Parameters));
        Assert.Equal(13, model.Parts.Single(part => part.Name == "projection of a use").Count);
    }

    [Theory]
    [InlineData(12, 12, 1536, 4096, 421.8e6)]
    [InlineData(18, 18, 2304, 6144, 1.330e9)]
    public void Samba_has_the_published_number_of_parameters(int layers, int heads, int hidden, int mlp, double parameters)
    {
        string text = $$"""{"model_type": "samba", "vocab_size": 32000, "padding_multiple": 64, "mb_per_layer": 2, "n_layer": {{layers}}, "n_head": {{heads}}, "n_embd": {{hidden}}, "intermediate_size": {{mlp}}, "local_window": 2048, "mamba_init": true}""";
        using LanguageModel model = LanguageModel.Create(ModelConfigFile.Parse(System.Text.Encoding.UTF8.GetBytes(text)));
        Assert.Equal(parameters, model.ParameterCount, parameters * 4e-4);
        Assert.Equal(model.ParameterCount, model.Parts.Sum(part => part.Parameters));
        // A Mamba layer, [x; z], convolution and its bias, [dt; B; C], dt, A and D, output; an attention layer's four projections; an MLP and two norms each; the embedding and the last norm.
        long d = hidden, inner = 2 * d, rank = d / 16, mamba = 2 * inner * d + 5 * inner + (rank + 32) * inner + (rank + 1) * inner + 17 * inner + inner * d, rest = 3 * d * mlp + 2 * d;
        Assert.Equal(layers / 2 * (mamba + rest) + layers / 2 * (4 * d * d + rest) + 32000 * d + d, model.ParameterCount);
    }

    [Fact]
    public void A_structure_of_7B_parameters_is_built_in_less_than_a_second_and_without_buffers()
    {
        long buffers = Devices.LiveBuffers(Device.Cpu);
        var clock = Stopwatch.StartNew();
        using var model = new Zamba2(Zamba2Sizes("7B"));
        Assert.True(clock.ElapsedMilliseconds < 1000, $"{clock.ElapsedMilliseconds} ms");
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);
        TestContext.Current.TestOutputHelper?.WriteLine($"{clock.ElapsedMilliseconds} ms for {model.Parameters.Count} parameters");
    }

    [Fact]
    public void Parts_of_Mamba2_count_what_a_token_costs()
    {
        Mamba2Config c = SmallModels.Mamba2 with { Groups = 2, IsTied = false };
        using var model = new Mamba2(c);
        long inner = c.Heads * c.HeadDimension, channels = inner + 2 * c.Groups * c.StateSize;
        // A state's element: decay, input, their sum; product with C, and its sum.
        long layer = 2 * c.HiddenSize * (inner + channels + c.Heads) + 2 * channels * c.ConvKernel + 5 * inner * c.StateSize + 2 * inner * c.HiddenSize;
        Assert.Equal([0, c.Layers * layer, 2L * c.VocabularySize * c.HiddenSize], model.Parts.Select(part => part.FlopsPerToken));
        Assert.Equal(c.Layers * 4 * ((c.ConvKernel - 1) * channels + inner * c.StateSize), model.Parts.Sum(part => part.StateBytes));
        Assert.Equal(0, model.Parts.Sum(part => part.CacheBytesPerToken));
        Assert.Equal(model.ParameterCount, model.Parts.Sum(part => part.Parameters));
    }

    [Fact]
    public void Parts_of_Zamba2_count_every_use_of_a_shared_block()
    {
        Zamba2Config c = SmallModels.Zamba2 with { HybridLayers = [0, 2, 3], SharedBlocks = 2, KeyValueHeads = 2 };
        using var model = new Zamba2(c);
        long d = c.HiddenSize, keys = c.KeyValueHeads * c.AttentionHeadDimension, inner = c.MambaHeads * c.MambaHeadDimension, channels = inner + 2 * c.MambaGroups * c.StateSize;
        long mixer = 2 * d * (inner + channels + c.MambaHeads) + 2 * channels * c.ConvKernel + 5 * inner * c.StateSize + 2 * inner * d;
        long block = 2 * (2 * d * 2 * d + 2 * 2 * d * keys + 2 * d * d + 3 * d * c.IntermediateSize);
        long use = 2 * c.AdapterRank * (2 * d + 2 * d + 2 * (2 * d + keys) + d + 2 * c.IntermediateSize) + 2 * d * d;
        Assert.Equal([0, c.Layers * mixer, 3 * block, 3 * use, 2 * d * c.VocabularySize], model.Parts.Select(part => part.FlopsPerToken));
        Assert.Equal(c.Layers * 4 * ((c.ConvKernel - 1) * channels + inner * c.StateSize), model.Parts.Sum(part => part.StateBytes));
        Assert.Equal(3 * 2 * 4 * keys, model.Parts.Sum(part => part.CacheBytesPerToken));
        Assert.Equal(model.ParameterCount, model.Parts.Sum(part => part.Parameters));
    }

    /// <summary>MODELS.md, section 7.</summary>
    private static Zamba2Config Zamba2Sizes(string size)
    {
        var common = new Zamba2Config
        {
            VocabularySize = 32000, HiddenSize = 2048, Layers = 38, HybridLayers = [5, 11, 17, 23, 29, 35], IntermediateSize = 8192, MambaHeads = 64, StateSize = 128,
            AttentionHeads = 32, KeyValueHeads = 32, HasAttentionAdapters = true, HasRope = true,
        };
        return size switch
        {
            "1.2B" => common,
            "2.7B" => common with
            {
                HiddenSize = 2560, Layers = 54, HybridLayers = [6, 12, 18, 24, 30, 36, 42, 47, 51], IntermediateSize = 10240, MambaHeads = 80, StateSize = 64,
                SharedBlocks = 2, HasAttentionAdapters = false, HasRope = false,
            },
            _ => common with
            {
                HiddenSize = 3584, Layers = 81, HybridLayers = [6, 11, 17, 23, 29, 35, 41, 47, 53, 59, 65, 71, 77], IntermediateSize = 14336, MambaHeads = 112, StateSize = 64,
                MambaGroups = 2, SharedBlocks = 2, HasAttentionAdapters = false,
            },
        };
    }
}
