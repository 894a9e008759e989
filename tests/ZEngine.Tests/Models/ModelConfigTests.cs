using ZEngine.Models;
using ZEngine.Tests.Weights;

namespace ZEngine.Tests.Models;

/// <summary>Configurations: every rule has its message, and what is written is read again.</summary>
public sealed class ModelConfigTests
{
    [Theory]
    [InlineData("mamba2", "num_heads", "5", "num_heads times head_dim must be hidden_size times expand")]
    [InlineData("mamba2", "hidden_size", "0", "hidden_size must be an integer from 1 to 16777216, got 0.")]
    [InlineData("mamba2", "hidden_size", "\"64\"", "hidden_size must be")]
    [InlineData("mamba2", "hidden_size", "2147483647", "hidden_size must be")]
    [InlineData("mamba2", "num_hidden_layers", "2000000000", "num_hidden_layers must be an integer from 1 to 10000, got 2000000000.")]
    [InlineData("mamba2", "n_groups", "3", "Mamba2: 3 groups do not divide")]
    [InlineData("mamba2", "hidden_act", "\"relu\"", "hidden_act must be \"silu\", got \"relu\"")]
    [InlineData("mamba2", "rms_norm", "false", "rms_norm must be true")]
    [InlineData("mamba2", "time_step_limit", "[1]", "time_step_limit must be two numbers, got 1")]
    [InlineData("mamba2", "time_step_limit", "[2, 1]", "Mamba2: the time step's limits must be the least and the largest, got 2 and 1.")]
    [InlineData("mamba2", "time_step_min", "5", "Mamba2: initial time steps must be from a least to a largest, got 5 and 0.1.")]
    [InlineData("mamba2", "layer_norm_epsilon", "NaN", "layer_norm_epsilon must be a finite number")]
    [InlineData("mamba2", "model_type", "\"rwkv\"", "model_type must be one of")]
    [InlineData("mamba2", "tie_word_embeddings", "1", "tie_word_embeddings must be true or false")]
    [InlineData("zamba2_one_block", "n_mamba_heads", "3", "n_mamba_heads times mamba_headdim must be hidden_size times mamba_expand")]
    [InlineData("zamba2_one_block", "mamba_ngroups", "3", "Zamba2: 3 groups do not divide 4 heads.")]
    [InlineData("zamba2_one_block", "hidden_act", "\"silu\"", "hidden_act must be \"gelu\", got \"silu\"")]
    [InlineData("zamba2_one_block", "add_bias_linear", "true", "add_bias_linear must be false, got true")]
    [InlineData("zamba2_one_block", "tie_word_embeddings", "false", "tie_word_embeddings must be true, got false")]
    [InlineData("zamba2_one_block", "attention_hidden_size", "32", "attention_hidden_size must be 64, got 32")]
    [InlineData("zamba2_one_block", "attention_head_dim", "8", "attention_head_dim must be 16, got 8")]
    [InlineData("zamba2_one_block", "num_key_value_heads", "3", "Zamba2: 3 key and value heads do not divide 4 attention heads.")]
    [InlineData("zamba2_one_block", "num_mem_blocks", "4", "Zamba2: 4 shared blocks need as many hybrid layers, got 3.")]
    [InlineData("zamba2_one_block", "hybrid_layer_ids", "[1, 2]", "hybrid_layer_ids does not name the layers that layers_block_type calls hybrid")]
    [InlineData("zamba2_one_block", "layers_block_type", "[\"mamba\"]", "layers_block_type must name 6 layers, got 1")]
    [InlineData("zamba2_one_block", "layers_block_type", "null", "")]
    [InlineData("zamba2_one_block", "use_long_context", "true", "use_long_context is true")]
    [InlineData("zamba2_one_block", "conv_dimension", "4", "layout of the first uploads")]
    [InlineData("zamba2_one_block", "time_step_limit", "[0.1]", "time_step_limit must be two numbers, got 1")]
    [InlineData("zamba2_one_block", "rope_parameters", "{\"rope_type\": \"spiral\"}", "rope_type must be")]
    [InlineData("zamba2_one_block", "rope_parameters", "{\"rope_type\": \"default\", \"partial_rotary_factor\": 0.2}", "must be a positive even number")]
    [InlineData("zamba2_one_block", "adapter_rank", "-1", "adapter_rank must be")]
    [InlineData("zamba", "hidden_mamba_act", "\"relu\"", "hidden_mamba_act must be \"silu\", got \"relu\"")]
    [InlineData("zamba", "n_mamba_heads", "3", "Zamba: 3 Mamba heads do not divide 64 channels.")]
    [InlineData("zamba", "mamba_dt_rank", "\"best\"", "mamba_dt_rank must be a number or \"auto\", got \"best\"")]
    [InlineData("zamba", "mamba_dt_rank", "\"auto\"", "")]
    [InlineData("zamba", "attn_layer_period", "2", "layers_block_type does not follow attn_layer_period 2 and attn_layer_offset 2, by which layers 2 are hybrid")]
    [InlineData("zamba", "layers_block_type", "null", "")]
    [InlineData("zamba", "num_hidden_layers", "2", "layers_block_type must name 2 layers, got 6")]
    [InlineData("zamba", "tie_word_embeddings", "false", "tie_word_embeddings must be true, got false")]
    [InlineData("zamba", "num_attention_heads", "3", "attention_head_dim must be 21, got 16")]
    [InlineData("samba", "n_query_groups", "3", "Samba: 3 key and value heads do not divide 4 attention heads.")]
    [InlineData("samba", "n_query_groups", "null", "")]
    [InlineData("samba", "n_head", "5", "Samba: 5 heads do not divide the hidden size 32.")]
    [InlineData("samba", "bias", "true", "bias must be false, got true")]
    [InlineData("samba", "gla_per_layer", "2", "gla_per_layer must be -1, got 2")]
    [InlineData("samba", "attn_layer_pos", "\"[0,]\"", "attn_layer_pos must be null")]
    [InlineData("samba", "_mlp_class", "\"GptNeoxMLP\"", "_mlp_class must be \"LLaMAMLP\", got \"GptNeoxMLP\"")]
    [InlineData("samba", "_norm_class", "\"LayerNorm\"", "_norm_class must be \"FusedRMSNorm\" or \"RMSNorm\", got \"LayerNorm\"")]
    [InlineData("samba", "rotary_percentage", "0.2", "must be a positive even number")]
    [InlineData("samba", "rotary_percentage", "2", "rotary_percentage must be above 0 and at most 1, got 2")]
    [InlineData("samba", "condense_ratio", "0.5", "condense_ratio must be at least 1, got 0.5")]
    [InlineData("samba", "local_window", "-2", "local_window must be")]
    public void A_broken_rule_is_one_line_that_names_the_file(string model, string key, string value, string message)
    {
        string text = File.ReadAllText(Path.Combine(GoldenFolder.Path, "models", model, "config.json"));
        ModelConfigFile file = ModelConfigFile.Parse(System.Text.Encoding.UTF8.GetBytes(With(text, key, value)), "some/config.json");
        if (message.Length == 0)
        {
            LanguageModel.Create(file).Dispose();                                   // a rule that allows it
            return;
        }
        string got = Fixtures.MessageOf<InvalidDataException>(() => LanguageModel.Create(file));
        Assert.StartsWith("some/config.json: ", got, StringComparison.Ordinal);
        Assert.Contains(message, got, StringComparison.Ordinal);
    }

    [Fact]
    public void A_written_configuration_is_read_with_equal_values()
    {
        Mamba2Config mamba = SmallModels.Mamba2 with { HasBias = true, IsTied = true, RescalesResidual = true, TimeStepLimit = (0.001, double.PositiveInfinity), NormEpsilon = 1e-6, TimeStepMin = 1e-30 };
        Assert.Equal(mamba, Mamba2Config.Read(Again(mamba.ToFile())) with { File = null });
        foreach (Zamba2Config zamba in (Zamba2Config[])[SmallModels.Zamba2, SmallModels.Zamba2 with { HasRope = false, TimeStepLimit = (0, 2), SharedBlocks = 2 },
            SmallModels.Zamba2 with { Rotary = new RotaryOptions { Theta = 5e5, Scaling = RotaryScaling.Yarn, Factor = 4, MaxPositions = 4096, OriginalMaxPositions = 1024 } }])
        {
            Zamba2Config read = Zamba2Config.Read(Again(zamba.ToFile()));
            Assert.Equal(zamba.HybridLayers, read.HybridLayers);
            Assert.Equal(zamba.Rotary, read.Rotary);
            Assert.Equal(zamba, read with { File = null, HybridLayers = zamba.HybridLayers });
        }
        ZambaConfig first = SmallModels.Zamba with { MambaHeads = 4, HasBias = true, HasConvBias = false, Expand = 3 };
        Assert.Equal(first, ZambaConfig.Read(Again(first.ToFile())) with { File = null });
        foreach (SambaConfig samba in (SambaConfig[])[SmallModels.Samba, SmallModels.Samba with { HasRope = false, IsTied = false, SlidingWindow = 0, MambaPeriod = 0, FullPeriod = 2 },
            SmallModels.Samba with { Rotary = new RotaryOptions { PartialFactor = 0.5, Scaling = RotaryScaling.Linear, Factor = 4, HasRoundedTables = true, MaxPositions = 64 } },
            SmallModels.Samba with { Rotary = new RotaryOptions { Theta = 5e5, Scaling = RotaryScaling.Yarn, Factor = 4, MaxPositions = 4096, OriginalMaxPositions = 1024, HasRoundedTables = true } }])
            Assert.Equal(samba, SambaConfig.Read(Again(samba.ToFile())) with { File = null, InitializerRange = samba.InitializerRange });
    }

    [Theory]
    [InlineData(RotaryScaling.Default)]
    [InlineData(RotaryScaling.Linear)]
    [InlineData(RotaryScaling.Dynamic)]
    [InlineData(RotaryScaling.Yarn)]
    [InlineData(RotaryScaling.Llama3)]
    [InlineData(RotaryScaling.LongRope)]
    public void Rotary_options_are_written_and_read(RotaryScaling scaling)
    {
        RotaryOptions options = new() { Theta = 1e6, PartialFactor = 0.5, Scaling = scaling, MaxPositions = 8192 };
        if (scaling is not RotaryScaling.Default) options = options with { Factor = 4 };
        if (scaling is RotaryScaling.Yarn) options = options with { OriginalMaxPositions = 2048, BetaFast = 16, BetaSlow = 2, Mscale = 0.7, MscaleAllDim = 0.9, Truncate = false, AttentionFactor = 1.5 };
        if (scaling is RotaryScaling.Llama3) options = options with { OriginalMaxPositions = 2048, LowFrequencyFactor = 2, HighFrequencyFactor = 5 };
        if (scaling is RotaryScaling.LongRope) options = options with { OriginalMaxPositions = 2048, ShortFactors = [1, 1.5], LongFactors = [2, 3.5], AttentionFactor = 1.25 };
        ModelConfigFile file = Again(ModelConfigFile.Create([new("max_position_embeddings", options.MaxPositions), new("rope_parameters", options.ToValues())]));
        Assert.Equal(options, RotaryOptions.Read(file));
        Assert.Empty(file.UnreadKeys);
    }

    [Fact]
    public void A_changed_copy_of_a_read_configuration_has_a_file_of_its_own()
    {
        ModelConfigFile file = ModelConfigFile.Open(Path.Combine(GoldenFolder.Path, "models", "zamba2_one_block", "config.json"));
        Zamba2Config read = Zamba2Config.Read(file);
        using (var model = new Zamba2(read)) Assert.Equal(file.Text, model.Config.Text);
        using var changed = new Zamba2(read with { VocabularySize = 50, HybridLayers = [0, 4] });
        Zamba2Config again = Zamba2Config.Read(changed.Config);
        Assert.Equal(50, again.VocabularySize);
        Assert.Equal([0, 4], again.HybridLayers);
        Mamba2Config mamba = Mamba2Config.Read(ModelConfigFile.Open(Path.Combine(GoldenFolder.Path, "models", "mamba2", "config.json")));
        using var deeper = new Mamba2(mamba with { Layers = 7 });
        Assert.Equal(7, Mamba2Config.Read(deeper.Config).Layers);
    }

    private static ModelConfigFile Again(ModelConfigFile file) => ModelConfigFile.Parse(System.Text.Encoding.UTF8.GetBytes(file.Text));

    /// <summary>The text of an object with the value of one key replaced, or the key added.</summary>
    private static string With(string json, string key, string value)
    {
        int at = json.IndexOf($"\n  \"{key}\": ", StringComparison.Ordinal);
        if (at < 0) return "{\n  \"" + key + "\": " + value + "," + json[1..];
        int end = json.IndexOf("\n  \"", at + 1, StringComparison.Ordinal);
        bool isLast = end < 0;
        if (isLast) end = json.LastIndexOf("\n}", StringComparison.Ordinal);
        return json[..at] + $"\n  \"{key}\": {value}{(isLast ? "" : ",")}" + json[end..];
    }
}
