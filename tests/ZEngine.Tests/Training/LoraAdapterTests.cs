using ZEngine.CrashHost;
using ZEngine.Models;
using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>Adapters are part of what models compute, on every parameter, and leave without a trace.</summary>
public sealed class LoraAdapterTests
{
    [Theory]
    [InlineData("mamba2")]
    [InlineData("zamba2")]
    [InlineData("llama")]
    public void Gradient_is_that_of_the_loss_for_every_change_and_the_base_has_none(string kind)
    {
        using LanguageModel model = SmallModels.New(kind);
        byte[] before = RunFolder.Weights(model);
        using LoraAdapter adapter = LoraAdapter.Attach(model, new LoraOptions { Rank = 3, Alpha = 3, Targets = SmallModels.Targets(kind) }, seed: 1);
        Disturb(adapter, 0.2f);
        Backward(model);
        Assert.All(model.Parameters, parameter => Assert.Null(parameter.Gradient));
        foreach (Parameter parameter in adapter.Parameters)
        {
            Assert.NotNull(parameter.Gradient);
            float[] gradient = parameter.Gradient.ToArray<float>(), value = parameter.Value.ToArray<float>();
            double norm = Math.Sqrt(gradient.Sum(g => (double)g * g));
            Assert.True(norm > 1e-5, $"{parameter}: gradient of norm {norm}");
            const double Step = 4e-3;
            double rise = (Along(Step) - Along(-Step)) / (2 * Step);
            parameter.Value.CopyFrom<float>(value);
            Assert.True(Math.Abs(rise - norm) < 0.02 * norm + 6e-4, $"{parameter}: gradient of norm {norm}, the loss rises by {rise}");

            double Along(double step)
            {
                parameter.Value.CopyFrom<float>(Array.ConvertAll(value, v => v).Select((v, i) => (float)(v + step * gradient[i] / norm)).ToArray());
                return Loss(model);
            }
        }
        Assert.Equal(before, RunFolder.Weights(model));
    }

    [Theory]
    [InlineData("mamba2", DType.Float32)]
    [InlineData("zamba2", DType.Float32)]
    [InlineData("llama", DType.Float32)]
    [InlineData("mamba2", DType.BFloat16)]
    [InlineData("zamba2", DType.BFloat16)]
    [InlineData("llama", DType.BFloat16)]
    public void Merged_equals_unmerged_up_to_the_rounding_of_the_weights(string kind, DType dtype)
    {
        long buffers = Devices.LiveBuffers(Device.Cpu);
        MergeAndCompare(kind, dtype);
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);
    }

    private static void MergeAndCompare(string kind, DType dtype)
    {
        using LanguageModel model = SmallModels.New(kind, dtype);
        using LoraAdapter adapter = LoraAdapter.Attach(model, new LoraOptions { Rank = 3, Alpha = 6, Targets = SmallModels.Targets(kind) }, seed: 1);
        Disturb(adapter, 0.1f);
        float[] unmerged = Logits(model);
        double[][] wanted = [.. adapter.Changes.Select(Sum)];
        adapter.Merge();
        Assert.False(adapter.IsAttached);
        for (int c = 0; c < wanted.Length; c++)
        {
            Parameter parameter = adapter.Changes[c].Parameter;
            Assert.Null(parameter.Update);
            Assert.True(parameter.IsTrainable);
            Assert.Equal(parameter.IsMatrix ? dtype : DType.Float32, parameter.Value.DType);
            // The sum is made in Float32 of terms up to about 1; a bfloat16 is within 2⁻⁸ of what is rounded to it.
            double rounding = parameter.Value.DType == DType.Float32 ? 0 : 1.0 / (1 << 8);
            float[] merged = Floats(parameter.Value);
            for (int i = 0; i < merged.Length; i++) Assert.True(Math.Abs(merged[i] - wanted[c][i]) <= rounding * Math.Abs(wanted[c][i]) + 5e-7, $"{parameter} at {i}: {merged[i]}, want {wanted[c][i]}");
        }
        float[] now = Logits(model);
        float bound = (dtype == DType.Float32 ? 1e-4f : 0.1f) * unmerged.Max(MathF.Abs);
        for (int i = 0; i < now.Length; i++) Assert.True(MathF.Abs(now[i] - unmerged[i]) <= bound, $"logit {i}: {now[i]}, unmerged {unmerged[i]}");
        Assert.Throws<InvalidOperationException>(adapter.Merge);
    }

    [Theory]
    [InlineData("mamba2")]
    [InlineData("zamba2")]
    [InlineData("llama")]
    public void Fresh_paused_and_detached_models_have_the_bits_of_the_original(string kind)
    {
        using LanguageModel model = SmallModels.New(kind);
        model.Parameters[1].IsTrainable = false;
        float[] original = Logits(model);
        using (LoraAdapter adapter = LoraAdapter.Attach(model, new LoraOptions { Rank = 2 }, seed: 1))
        {
            Assert.Equal(original, Logits(model));
            Disturb(adapter, 0.1f);
            float[] changed = Logits(model);
            Assert.NotEqual(original, changed);
            using (LoraPause pause = adapter.Pause())
            {
                using LoraPause inner = adapter.Pause();
                Assert.Equal(original, Logits(model));
            }
            Assert.Equal(changed, Logits(model));
            adapter.Detach();
            Assert.Equal(original, Logits(model));
            Assert.False(model.Parameters[1].IsTrainable);
            Assert.True(model.Parameters[0].IsTrainable);
        }
        using (LoraAdapter.Attach(model, new LoraOptions { Rank = 2 }, seed: 1)) Assert.All(model.Parameters, parameter => Assert.False(parameter.IsTrainable));
        Assert.All(model.Parameters, parameter => Assert.Null(parameter.Update));
    }

    [Fact]
    public void Default_covers_every_projection_but_neither_embedding_nor_head()
    {
        using LanguageModel model = SmallModels.New("zamba2");
        using LoraAdapter adapter = LoraAdapter.Attach(model, new LoraOptions { Rank = 2 }, seed: 1);
        string[] covered = [.. adapter.Changes.Select(change => change.Parameter.Name)];
        Assert.Equal(model.Parameters.Where(parameter => parameter.IsMatrix && !parameter.Name.Contains("embed", StringComparison.Ordinal)).Select(parameter => parameter.Name), covered);
        Assert.Equal(3, covered.Count(name => name.EndsWith("mamba.out_proj.weight", StringComparison.Ordinal)));
        Assert.Equal(covered.Length, adapter.Coverage.Covered);
        Assert.Equal(adapter.Changes.Sum(change => 2 * (change.Parameter.Shape[0] + change.Parameter.Shape[1])), adapter.Coverage.TrainableNumbers);
        Assert.Contains($"{covered.Length} of {model.Parameters.Count} parameters covered", adapter.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Targets_are_whole_segments_and_one_that_names_nothing_is_an_error()
    {
        using LanguageModel model = SmallModels.New("mamba2");
        Assert.Equal(["backbone.layers.1.mixer.conv1d.weight"], Covered("layers.1.mixer.conv1d"));
        Assert.Equal(2, Covered("D").Length);
        Assert.Equal(2, Covered("in_proj").Length);
        Assert.Equal(4, Covered("in_proj", "in_proj.bias").Length);
        var error = Assert.Throws<ArgumentException>(() => Covered("in_proj", "q_proj"));
        Assert.Equal("LoraOptions.Targets: nothing in Mamba2 is named 'q_proj'; there are A_log, D, conv1d, conv1d.bias, dt_bias, embeddings, in_proj, in_proj.bias, lm_head, norm, norm_f, out_proj, out_proj.bias.", error.Message);
        Assert.Throws<ArgumentException>(() => Covered("proj"));
        Assert.Throws<ArgumentException>(() => Covered());
        Assert.Throws<ArgumentException>(() => LoraAdapter.Attach(model, new LoraOptions { Rank = 0 }, 1));
        Assert.Throws<ArgumentException>(() => LoraAdapter.Attach(model, new LoraOptions { Alpha = float.NaN }, 1));
        Assert.All(model.Parameters, parameter => Assert.True(parameter is { IsTrainable: true, Update: null }));
        using LoraAdapter first = LoraAdapter.Attach(model, new LoraOptions(), 1);
        Assert.Contains("has a low-rank update already", Assert.Throws<InvalidOperationException>(() => Covered("D")).Message, StringComparison.Ordinal);

        string[] Covered(params string[] targets)
        {
            using LoraAdapter adapter = LoraAdapter.Attach(model, new LoraOptions { Targets = targets }, 1);
            return [.. adapter.Changes.Select(change => change.Parameter.Name)];
        }
    }

    [Theory]
    [InlineData("mamba2")]
    [InlineData("zamba2")]
    [InlineData("llama")]
    public void Saved_adapter_loads_with_the_same_bits(string kind)
    {
        using var run = new RunFolder();
        using LanguageModel model = SmallModels.New(kind), other = SmallModels.New(kind), bare = SmallModels.New(kind), wrong = SmallModels.New(kind == "llama" ? "mamba2" : "llama");
        using (LoraAdapter adapter = LoraAdapter.Attach(model, new LoraOptions { Rank = 3, Alpha = 5, Targets = SmallModels.Targets(kind) }, seed: 1))
        {
            Disturb(adapter, 0.1f);
            adapter.Save(run.Path);
            using LoraAdapter loaded = LoraAdapter.Load(run.Path, other);
            Assert.Equal((3, 5f), (loaded.Options.Rank, loaded.Options.Alpha));
            Assert.Equal(adapter.Parameters.Select(parameter => parameter.Name), loaded.Parameters.Select(parameter => parameter.Name));
            Assert.Equal(Logits(model), Logits(other));
            Assert.NotEqual(Logits(bare), Logits(other));
        }
        Assert.Contains("It is the adapter of another model.", Assert.Throws<InvalidDataException>(() => LoraAdapter.Load(run.Path, wrong)).Message, StringComparison.Ordinal);
        Assert.All(wrong.Parameters, parameter => Assert.True(parameter is { IsTrainable: true, Update: null }));
    }

    [Fact]
    public void Files_have_the_names_of_PEFT_and_are_read_strictly()
    {
        using var run = new RunFolder();
        using LanguageModel model = SmallModels.New("mamba2");
        string path = Path.Combine(run.Path, "adapter_model.safetensors"), config = Path.Combine(run.Path, "adapter_config.json");
        using (LoraAdapter adapter = LoraAdapter.Attach(model, new LoraOptions { Rank = 3, Targets = ["layers.0.mixer.out_proj", "layers.1.mixer.conv1d", "layers.0.mixer.D"] }, seed: 1)) adapter.Save(run.Path);
        SafetensorsTensor[] tensors;
        using (SafetensorsFile file = SafetensorsFile.Open(path))
        {
            Assert.Equal(
                [
                    "base_model.model.backbone.layers.0.mixer.D.lora_delta", "base_model.model.backbone.layers.0.mixer.out_proj.lora_A.weight", "base_model.model.backbone.layers.0.mixer.out_proj.lora_B.weight",
                    "base_model.model.backbone.layers.1.mixer.conv1d.lora_kernel_A", "base_model.model.backbone.layers.1.mixer.conv1d.lora_kernel_B",
                ],
                file.Entries.Select(entry => entry.Name));
            Assert.Equal([3L, 32], file.Entries[1].Shape);
            Assert.Equal([16L, 3], file.Entries[2].Shape);
            tensors = [.. file.Entries.Select(entry => SafetensorsTensor.FromFile(file, entry))];
            Directory.CreateDirectory(Path.Combine(run.Path, "less"));
            SafetensorsWriter.Write(Path.Combine(run.Path, "less", "adapter_model.safetensors"), [.. tensors.Skip(2)]);
        }
        string text = File.ReadAllText(config);
        File.WriteAllText(Path.Combine(run.Path, "less", "adapter_config.json"), text);
        Refuses("out_proj.lora_A.weight' [3, 32] is missing.", Path.Combine(run.Path, "less"));
        Change("\"r\": 3", "\"r\": 4");
        Refuses("of another rank.", run.Path);
        Change("\"use_dora\": false", "\"use_dora\": true");
        Refuses("use_dora must be false", run.Path);
        Change("\"LORA\"", "\"IA3\"");
        Refuses("peft_type must be LORA, got IA3", run.Path);
        File.WriteAllText(config, text);
        File.WriteAllBytes(path, File.ReadAllBytes(path)[..^8]);
        Refuses("adapter_model.safetensors", run.Path);

        void Change(string from, string to) => File.WriteAllText(config, text.Replace(from, to, StringComparison.Ordinal));

        void Refuses(string message, string folder)
        {
            Assert.Contains(message, Assert.Throws<InvalidDataException>(() => LoraAdapter.Load(folder, model)).Message, StringComparison.Ordinal);
            Assert.All(model.Parameters, parameter => Assert.True(parameter is { IsTrainable: true, Update: null }));
        }
    }

    [Fact]
    public void Half_precision_adapter_with_the_configuration_that_PEFT_writes_loads()
    {
        using var run = new RunFolder();
        using LanguageModel model = SmallModels.New("llama");
        File.WriteAllText(Path.Combine(run.Path, "adapter_config.json"), """
            {"alpha_pattern": {}, "auto_mapping": null, "base_model_name_or_path": "some/model", "bias": "none", "fan_in_fan_out": false, "inference_mode": true,
             "init_lora_weights": true, "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 6, "lora_dropout": 0.05, "megatron_config": null,
             "modules_to_save": null, "peft_type": "LORA", "r": 2, "rank_pattern": {}, "revision": null, "target_modules": ["v_proj"], "task_type": "CAUSAL_LM",
             "use_dora": false, "use_rslora": false}
            """);
        using (TensorScope scope = TensorScope.Enter())
        {
            Tensor down = Tensor.From<float>([.. Enumerable.Range(0, 32).Select(i => i / 16f)], [2, 16], Device.Cpu).To(DType.Float16);
            Tensor up = Tensor.From<float>([.. Enumerable.Range(0, 16).Select(i => -i / 8f)], [8, 2], Device.Cpu).To(DType.Float16);
            const string Name = "base_model.model.model.layers.1.self_attn.v_proj.lora_";
            SafetensorsWriter.Write(Path.Combine(run.Path, "adapter_model.safetensors"), [ParameterFiles.ToSafetensors(Name + "A.weight", down), ParameterFiles.ToSafetensors(Name + "B.weight", up)]);
        }
        using LoraAdapter adapter = LoraAdapter.Load(run.Path, model);
        LoraChange change = Assert.Single(adapter.Changes);
        Assert.Equal(("model.layers.1.self_attn.v_proj.weight", 3f), (change.Parameter.Name, change.Update.Scale));
        Assert.Equal(Enumerable.Range(0, 32).Select(i => i / 16f), change.Update.Down!.Value.ToArray<float>());
        Assert.Equal(Enumerable.Range(0, 16).Select(i => -i / 8f), change.Update.Up.Value.ToArray<float>());
    }

    [Fact]
    public void Adapter_that_the_loss_does_not_reach_is_an_error_in_the_first_step()
    {
        // TinyModel reads its hidden layer's weight without the update.
        using TinyModel model = RunFolder.NewModel();
        using LoraAdapter adapter = LoraAdapter.Attach(model, new LoraOptions { Rank = 2, Targets = ["up", "head"] }, seed: 1);
        using var adam = new AdamW([.. model.Parameters, .. adapter.Parameters]);
        Backward(model);
        var error = Assert.Throws<InvalidOperationException>(() => adam.Step(0.1f));
        Assert.StartsWith("AdamW: no gradient reached up.lora_A.weight [2, 16], up.lora_B.weight [32, 2] in the first step", error.Message, StringComparison.Ordinal);
        adapter.ClearGradients();
    }

    private static Tensor Forward(LanguageModel model) => model.Forward(Tensor.From<int>(SmallModels.Tokens(2 * 12), [2, 12], Device.Cpu));

    private static float[] Logits(LanguageModel model)
    {
        using TensorScope scope = TensorScope.Enter();
        return Forward(model).ToArray<float>();
    }

    /// <summary>In double precision, so that differences are not lost in the rounding of the mean.</summary>
    private static double Loss(LanguageModel model)
    {
        float[] logits = Logits(model);
        int[] targets = SmallModels.Tokens(2 * 12, seed: 2);
        int classes = logits.Length / targets.Length;
        return targets.Select((target, row) =>
        {
            double[] own = [.. logits.AsSpan(row * classes, classes).ToArray().Select(x => (double)x)];
            return own.Max() + Math.Log(own.Sum(x => Math.Exp(x - own.Max()))) - own[target];
        }).Average();
    }

    private static void Backward(LanguageModel model)
    {
        using Tape tape = Tape.Begin();
        tape.Backward(ZEngine.Ops.CrossEntropy(Forward(model), Tensor.From<int>(SmallModels.Tokens(2 * 12, seed: 2), [2, 12], Device.Cpu)));
    }

    private static void Disturb(LoraAdapter adapter, float size)
    {
        foreach (Parameter parameter in adapter.Parameters)
        {
            var random = new RandomStream(9, RandomStream.Of(parameter.Name));
            parameter.Value.CopyFrom<float>(Enumerable.Range(0, (int)parameter.Count).Select(i => size * random.Normal(i)).ToArray());
        }
    }

    private static float[] Floats(Tensor tensor)
    {
        using TensorScope scope = TensorScope.Enter();
        return tensor.To(DType.Float32).ToArray<float>();
    }

    private static double[] Sum(LoraChange change)
    {
        double[] sum = [.. Floats(change.Parameter.Value).Select(value => (double)value)];
        float[] up = Floats(change.Update.Up.Value);
        if (change.Update.Down is not { } lower) return [.. sum.Select((value, i) => value + up[i])];
        float[] down = Floats(lower.Value);
        int rank = (int)lower.Shape[0], columns = (int)lower.Shape[1];
        return [.. sum.Select((value, i) => value + change.Update.Scale * Enumerable.Range(0, rank).Sum(r => (double)up[i / columns * rank + r] * down[r * columns + i % columns]))];
    }
}
