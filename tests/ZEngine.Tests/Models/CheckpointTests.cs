using ZEngine.Models;
using ZEngine.Tests.Weights;

namespace ZEngine.Tests.Models;

/// <summary>Folders of models: what is saved, what is loaded, and what is refused without a trace.</summary>
public sealed class CheckpointTests
{
    private const string Weights = "model.safetensors", Config = "config.json";

    public static TheoryData<string> Golden => ["mamba", "falcon_mamba", "llama", "llama_rope_scaled", "mistral_sliding", "mamba2", "samba", "zamba", "zamba2_one_block", "zamba2_two_blocks"];

    [Theory, MemberData(nameof(Golden))]
    public void A_loaded_model_saves_to_the_same_bytes(string name)
    {
        using var folder = new TemporaryFolder();
        string source = Source(name);
        using (LanguageModel model = LanguageModel.Load(source, Device.Cpu)) model.Save(folder["a"]);
        using (LanguageModel model = LanguageModel.Load(folder["a"], Device.Cpu, isWritable: false)) model.Save(folder["b"]);
        foreach (string file in (string[])[Weights, Config])
        {
            Assert.Equal(File.ReadAllBytes(Path.Combine(source, file)), File.ReadAllBytes(folder[$"a/{file}"]));
            Assert.Equal(File.ReadAllBytes(Path.Combine(source, file)), File.ReadAllBytes(folder[$"b/{file}"]));
        }
    }

    [Theory, MemberData(nameof(Golden))]
    public void Shards_are_loaded_and_saved_as_shards(string name)
    {
        using var folder = new TemporaryFolder();
        using (WeightFiles weights = WeightFiles.Open(Source(name))) WeightFiles.Save(folder["shards"], Fixtures.TensorsOf(weights), maxShardBytes: 20_000);
        File.Copy(Path.Combine(Source(name), Config), folder["shards/config.json"]);
        string[] files = Files(folder["shards"]);
        Assert.True(files.Length > 3);
        float[] logits;
        using (LanguageModel whole = LanguageModel.Load(Source(name), Device.Cpu)) logits = SmallModels.Logits(whole, [1, 2, 3, 4]);
        using LanguageModel model = LanguageModel.Load(folder["shards"], Device.Cpu);
        Assert.Equal(logits, SmallModels.Logits(model, [1, 2, 3, 4]));
        model.Save(folder["again"]);
        Assert.Equal(files, Files(folder["again"]));
        foreach (string file in files) Assert.Equal(File.ReadAllBytes(folder[$"shards/{file}"]), File.ReadAllBytes(folder[$"again/{file}"]));
    }

    [Theory, MemberData(nameof(Golden))]
    public void Matrices_may_be_narrowed_and_the_rest_stays_wide(string name)
    {
        using var folder = new TemporaryFolder();
        float[] logits;
        using (LanguageModel model = LanguageModel.Load(Source(name), Device.Cpu, DType.BFloat16))
        {
            Assert.All(model.Parameters, parameter => Assert.Equal(parameter.IsMatrix ? DType.BFloat16 : DType.Float32, parameter.Value.DType));
            logits = SmallModels.Logits(model, [5, 6, 7]);
            model.Save(folder["a"]);
        }
        using (LanguageModel model = LanguageModel.Load(folder["a"], Device.Cpu))
        {
            Assert.All(model.Parameters, parameter => Assert.Equal(parameter.IsMatrix ? DType.BFloat16 : DType.Float32, parameter.Value.DType));
            Assert.Equal(logits, SmallModels.Logits(model, [5, 6, 7]));
            model.Save(folder["b"]);
        }
        Assert.Equal(File.ReadAllBytes(folder["a/model.safetensors"]), File.ReadAllBytes(folder["b/model.safetensors"]));
    }

    [Fact]
    public void A_checkpoint_all_in_16_bits_saves_to_the_same_bytes_until_a_vector_is_trained()
    {
        using var folder = new TemporaryFolder();
        using (LanguageModel model = LanguageModel.Load(Source("mamba2"), Device.Cpu, DType.BFloat16))
        using (TensorScope scope = TensorScope.Enter())
        {
            List<SafetensorsTensor> narrow = [.. model.Parameters.Select(parameter => SafetensorsTensor.FromStream(parameter.Name, DType.BFloat16, parameter.Shape, parameter.Value.To(DType.BFloat16).WriteTo))];
            WeightFiles.Save(folder["a"], narrow);
            model.Config.Save(folder["a/config.json"]);
        }
        using LanguageModel loaded = LanguageModel.Load(folder["a"], Device.Cpu);
        loaded.Save(folder["b"]);
        Assert.Equal(File.ReadAllBytes(folder["a/model.safetensors"]), File.ReadAllBytes(folder["b/model.safetensors"]));

        Parameter norm = loaded.Parameters.First(parameter => parameter.Name == "backbone.norm_f.weight");
        float[] values = [.. norm.Value.ToArray<float>().Select(value => value + 1e-6f)];
        norm.Value.CopyFrom<float>(values);
        loaded.Save(folder["c"]);
        using LanguageModel trained = LanguageModel.Load(folder["c"], Device.Cpu);
        Assert.Equal(values, trained.Parameters.First(parameter => parameter.Name == norm.Name).Value.ToArray<float>());
    }

    public static TheoryData<string> Small => SmallModels.Names;

    [Theory, MemberData(nameof(Small))]
    public void A_fresh_model_comes_back_with_the_same_bits(string name)
    {
        using var folder = new TemporaryFolder();
        using LanguageModel model = SmallModels.New(name);
        model.Save(folder["a"]);
        using LanguageModel again = LanguageModel.Load(folder["a"], Device.Cpu);
        Assert.Equal(model.GetType(), again.GetType());
        Assert.Empty(again.Config.UnreadKeys);
        foreach ((Parameter a, Parameter b) in model.Parameters.Zip(again.Parameters))
        {
            Assert.Equal(a.Name, b.Name);
            Assert.True(a.Value.ToArray<float>().AsSpan().SequenceEqual(b.Value.ToArray<float>()), a.Name);
        }
        Assert.Equal(SmallModels.Logits(model, [1, 2, 3]), SmallModels.Logits(again, [1, 2, 3]));
        Assert.Equal(model.Config.Text, again.Config.Text);
        again.Save(folder["b"]);
        foreach (string file in (string[])[Weights, Config]) Assert.Equal(File.ReadAllBytes(folder[$"a/{file}"]), File.ReadAllBytes(folder[$"b/{file}"]));
    }

    [Fact]
    public void The_seed_alone_makes_a_fresh_model()
    {
        using var a = new Zamba2(SmallModels.Zamba2, Device.Cpu, seed: 5);
        using var b = new Zamba2(SmallModels.Zamba2, Device.Cpu, seed: 5);
        using var c = new Zamba2(SmallModels.Zamba2, Device.Cpu, seed: 6);
        Assert.Equal(SmallModels.Logits(a, [1, 2]), SmallModels.Logits(b, [1, 2]));
        Assert.NotEqual(SmallModels.Logits(a, [1, 2]), SmallModels.Logits(c, [1, 2]));
    }

    [Fact]
    public void A_model_may_be_saved_over_the_files_it_is_mapped_from()
    {
        using var folder = new TemporaryFolder();
        using (LanguageModel model = SmallModels.New("mamba2")) model.Save(folder["a"]);
        using LanguageModel mapped = LanguageModel.Load(folder["a"], Device.Cpu);
        float[] logits = SmallModels.Logits(mapped, [1, 2, 3]);
        byte[] bytes = File.ReadAllBytes(folder["a/model.safetensors"]);
        mapped.Save(folder["a"]);
        Assert.Equal(bytes, File.ReadAllBytes(folder["a/model.safetensors"]));
        Assert.Equal(logits, SmallModels.Logits(mapped, [1, 2, 3]));
    }

    [Fact]
    public void A_tied_head_may_be_stored_too_or_alone()
    {
        using var folder = new TemporaryFolder();
        Change("mamba2", folder["both"], Tied, tensors => [.. Headless(tensors), Renamed(tensors, "backbone.embeddings.weight", "lm_head.weight")]);
        Change("mamba2", folder["alone"], Tied, tensors => [.. Headless(tensors).Where(tensor => tensor.Name != "backbone.embeddings.weight"), Renamed(tensors, "backbone.embeddings.weight", "lm_head.weight")]);
        Change("mamba2", folder["old"], Tied, tensors => [.. Headless(tensors).Where(tensor => tensor.Name != "backbone.embeddings.weight"), Renamed(tensors, "backbone.embeddings.weight", "backbone.embedding.weight")]);
        float[]? first = null;
        foreach (string variant in (string[])["both", "alone", "old"])
        {
            using LanguageModel model = LanguageModel.Load(folder[variant], Device.Cpu);
            first ??= SmallModels.Logits(model, [1, 2]);
            Assert.Equal(first, SmallModels.Logits(model, [1, 2]));
            model.Save(folder[variant + " again"]);
            Assert.Equal(File.ReadAllBytes(folder[$"{variant}/{Weights}"]), File.ReadAllBytes(folder[$"{variant} again/{Weights}"]));
        }
        Change("mamba2", folder["different"], Tied, tensors => [.. Headless(tensors), Renamed(tensors, "backbone.embeddings.weight", "lm_head.weight", bytes => bytes[0] ^= 1)]);
        Refused(folder["different"], "model.safetensors: tensor 'lm_head.weight' is tied to 'backbone.embeddings.weight' in this model, but the file holds different values for them.");

        static IEnumerable<SafetensorsTensor> Headless(SafetensorsTensor[] tensors) => tensors.Where(tensor => tensor.Name != "lm_head.weight");
        static string Tied(string config) => config.Replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true", StringComparison.Ordinal);
    }

    [Fact]
    public void A_shared_block_may_be_stored_at_every_use()
    {
        using var folder = new TemporaryFolder();
        const string First = "model.layers.1.shared_transformer.input_layernorm.weight", Later = "model.layers.5.shared_transformer.input_layernorm.weight";
        Change("zamba2_one_block", folder["same"], null, tensors => [.. tensors, Renamed(tensors, First, Later)]);
        using (LanguageModel model = LanguageModel.Load(folder["same"], Device.Cpu)) model.Save(folder["again"]);
        Assert.Equal(File.ReadAllBytes(folder["same/model.safetensors"]), File.ReadAllBytes(folder["again/model.safetensors"]));
        Change("zamba2_one_block", folder["different"], null, tensors => [.. tensors, Renamed(tensors, First, Later, bytes => bytes[0] ^= 1)]);
        Refused(folder["different"], $"tensor '{Later}' is tied to '{First}'");
    }

    [Fact]
    public void Tables_that_a_model_does_not_use_are_kept_for_saving()
    {
        using var folder = new TemporaryFolder();
        Change("zamba2_one_block", folder["a"], null, tensors => [.. tensors, Fixtures.Floats("model.rotary_emb.inv_freq", 1, 0.5f, 0.25f)]);
        using (LanguageModel model = LanguageModel.Load(folder["a"], Device.Cpu)) model.Save(folder["b"]);
        Assert.Equal(File.ReadAllBytes(folder["a/model.safetensors"]), File.ReadAllBytes(folder["b/model.safetensors"]));
        Change("zamba2_one_block", folder["c"], null, tensors => [.. tensors, Fixtures.Floats("model.rotary_emb.inv_freq", new float[300_000])]);
        Refused(folder["c"], "tensor 'model.rotary_emb.inv_freq' is of no use to the model and has 1200000 bytes");
    }

    [Fact]
    public void Wrong_tensors_are_named_with_their_file()
    {
        using var folder = new TemporaryFolder();
        const string Name = "backbone.layers.1.mixer.norm.weight";
        Case("missing", tensors => [.. tensors.Where(tensor => tensor.Name != Name)], $"missing: tensor '{Name}' [64] is missing.");
        Case("unknown", tensors => [.. tensors, Fixtures.Floats("backbone.layers.9.norm.weight", 1)], $"unknown/{Weights}: tensor 'backbone.layers.9.norm.weight' is not a parameter of Mamba2 as config.json describes it.");
        Case("hostile", tensors => [.. tensors, Fixtures.Floats("evil\nname", 1)], @"tensor 'evil\u000aname' is not a parameter of Mamba2");
        Case("shape", tensors => [.. tensors.Where(tensor => tensor.Name != Name), Fixtures.Floats(Name, 1, 2, 3)], $"shape/{Weights}: tensor '{Name}' must be [64], got [3].");
        Case("type", tensors => [.. tensors.Where(tensor => tensor.Name != Name), SafetensorsTensor.FromStream(Name, DType.Int64, [64], stream => stream.Write(new byte[512]))], $"type/{Weights}: tensor '{Name}' must be F32, BF16 or F16, got I64.");

        void Case(string name, Func<SafetensorsTensor[], SafetensorsTensor[]> change, string message)
        {
            Change("mamba2", folder[name], null, change);
            Refused(folder[name], message);
        }
    }

    [Fact]
    public void Weights_and_configuration_of_different_models_are_refused()
    {
        using var folder = new TemporaryFolder();
        Directory.CreateDirectory(folder["a"]);
        File.Copy(Path.Combine(Source("zamba2_one_block"), Weights), folder["a/model.safetensors"]);
        File.Copy(Path.Combine(Source("mamba2"), Config), folder["a/config.json"]);
        Refused(folder["a"], "is not a parameter of Mamba2 as config.json describes it.");
        File.Copy(Path.Combine(Source("zamba2_two_blocks"), Config), folder["a/config.json"], overwrite: true);
        Refused(folder["a"], "is not a parameter of Zamba2 as config.json describes it.");
    }

    [Theory, MemberData(nameof(Golden))]
    public void A_truncated_file_is_refused_at_every_length(string name)
    {
        using var folder = new TemporaryFolder();
        byte[] whole = File.ReadAllBytes(Path.Combine(Source(name), Weights));
        File.Copy(Path.Combine(Source(name), Config), folder[Config]);
        int header = 8 + (int)BitConverter.ToInt64(whole);
        foreach (int length in (int[])[0, 1, 7, 8, 9, header / 2, header - 1, header, header + 1, whole.Length / 2, whole.Length - 4, whole.Length - 1])
        {
            File.WriteAllBytes(folder[Weights], whole[..length]);
            Refused(folder.Path, Weights);
        }
        byte[] config = File.ReadAllBytes(folder[Config]);
        File.WriteAllBytes(folder[Weights], whole);
        foreach (int length in (int[])[0, 1, config.Length / 2, config.Length - 3])
        {
            File.WriteAllBytes(folder[Config], config[..length]);
            Refused(folder.Path, Config);
        }
    }

    [Fact]
    public void Missing_files_are_named()
    {
        using var folder = new TemporaryFolder();
        Assert.Contains(Config, Fixtures.MessageOf<FileNotFoundException>(() => LanguageModel.Load(folder.Path, Device.Cpu)), StringComparison.Ordinal);
        File.Copy(Path.Combine(Source("mamba2"), Config), folder[Config]);
        Assert.Contains(Weights, Fixtures.MessageOf<FileNotFoundException>(() => LanguageModel.Load(folder.Path, Device.Cpu)), StringComparison.Ordinal);
        Assert.ThrowsAny<IOException>(() => LanguageModel.Load(folder["nowhere"], Device.Cpu));
    }

    [Fact]
    public void Damaged_numbers_are_found_when_asked_for()
    {
        using var folder = new TemporaryFolder();
        using (LanguageModel whole = LanguageModel.Load(Source("mamba2"), Device.Cpu)) Assert.Empty(whole.FindNonFinite());
        foreach (DType? dtype in (DType?[])[null, DType.BFloat16, DType.Float16])
        {
            using LanguageModel model = LanguageModel.Load(Source("mamba2"), Device.Cpu, dtype);
            Assert.Empty(model.FindNonFinite());
            Put("backbone.layers.0.mixer.A_log", float.NaN);
            Assert.Equal(["backbone.layers.0.mixer.A_log"], model.FindNonFinite());
            Put("backbone.layers.1.mixer.in_proj.weight", float.NegativeInfinity);
            Assert.Equal(["backbone.layers.0.mixer.A_log", "backbone.layers.1.mixer.in_proj.weight"], model.FindNonFinite());

            void Put(string name, float value)
            {
                using TensorScope scope = TensorScope.Enter();
                Tensor tensor = model.Parameters.First(parameter => parameter.Name == name).Value;
                float[] values = tensor.To(DType.Float32).ToArray<float>();
                values[^1] = value;
                ZEngine.Ops.Copy(Tensor.From<float>(values, tensor.Shape, Device.Cpu).To(tensor.DType), tensor);
            }
        }
    }

    [Fact]
    public void Loading_maps_and_disposing_unmaps()
    {
        using var folder = new TemporaryFolder();
        using (LanguageModel model = SmallModels.New("mamba2")) model.Save(folder["a"]);
        long buffers = Devices.LiveBuffers(Device.Cpu);
        int mapped = Mappings(folder["a"]);
        LanguageModel loaded = LanguageModel.Load(folder["a"], Device.Cpu);
        if (OperatingSystem.IsLinux()) Assert.True(Mappings(folder["a"]) > mapped);
        loaded.Dispose();
        loaded.Dispose();
        Assert.Equal(mapped, Mappings(folder["a"]));
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);
        Directory.Delete(folder["a"], recursive: true);
    }

    private static int Mappings(string folder) => OperatingSystem.IsLinux() ? File.ReadLines("/proc/self/maps").Count(line => line.Contains(folder, StringComparison.Ordinal)) : 0;

    private static string Source(string name) => Path.Combine(GoldenFolder.Path, "models", name);

    private static string[] Files(string folder) => [.. Directory.GetFiles(folder).Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal)];

    /// <summary>Loading fails with one line that contains the message, and nothing stays alive or mapped.</summary>
    private static void Refused(string folder, string message)
    {
        long buffers = Devices.LiveBuffers(Device.Cpu);
        string got = Fixtures.MessageOf<InvalidDataException>(() => LanguageModel.Load(folder, Device.Cpu).Dispose());
        Assert.Contains(message, got, StringComparison.Ordinal);
        Assert.Contains(folder, got, StringComparison.Ordinal);
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);
        Assert.Equal(0, Mappings(folder));
    }

    private static void Change(string name, string target, Func<string, string>? config, Func<SafetensorsTensor[], SafetensorsTensor[]> tensors)
    {
        using WeightFiles weights = WeightFiles.Open(Source(name));
        WeightFiles.Save(target, tensors(Fixtures.TensorsOf(weights)));
        string text = File.ReadAllText(Path.Combine(Source(name), Config));
        File.WriteAllText(Path.Combine(target, Config), config is null ? text : config(text));
    }

    private static SafetensorsTensor Renamed(SafetensorsTensor[] tensors, string name, string newName, Action<byte[]>? change = null)
    {
        SafetensorsTensor tensor = tensors.First(tensor => tensor.Name == name);
        using var copy = new MemoryStream();
        tensor.WriteTo(copy);
        byte[] bytes = copy.ToArray();
        change?.Invoke(bytes);
        return SafetensorsTensor.FromStream(newName, DType.Float32, tensor.Shape, stream => stream.Write(bytes));
    }
}
