using ZEngine.CrashHost;
using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>Only what verifies is trusted, nothing valid is lost, and every refusal says why.</summary>
public sealed class CheckpointTests
{
    [Theory]
    [InlineData("model.safetensors", "flip", "model.safetensors does not have the hash of manifest.json: its contents changed")]
    [InlineData("optimizer.safetensors", "cut", "optimizer.safetensors has ")]
    [InlineData("trainer.json", "delete", "trainer.json is missing")]
    [InlineData("manifest.json", "delete", "manifest.json is missing: the checkpoint was not finished")]
    [InlineData("manifest.json", "cut", "manifest.json is damaged")]
    [InlineData("model.safetensors.index.json", "add", "model.safetensors.index.json is not in manifest.json")]
    public void Damaged_newest_checkpoint_is_reported_set_aside_and_done_again(string file, string damage, string reason)
    {
        using RunFolder straight = new(), damaged = new();
        (_, byte[] expected) = straight.Train(straight.Options(20));
        damaged.Train(damaged.Options(20), cancelAfterStep: 10);
        string newest = Path.Combine(damaged.Checkpoints, "step-000000010"), path = Path.Combine(newest, file);
        Damage(path, damage);

        var notices = new List<string>();
        (TrainingResult result, byte[] weights) = damaged.Train(damaged.Options(20), watch: trainer => trainer.Noticed += notices.Add);
        Assert.StartsWith($"{newest}: not trusted: {reason}", notices[0], StringComparison.Ordinal);
        Assert.EndsWith("the run goes on from step 5.", notices[1], StringComparison.Ordinal);
        Assert.True(Directory.Exists(newest + ".invalid"));
        Assert.Equal(expected, weights);
        Assert.Equal(straight.Metrics(), damaged.Metrics());
    }

    [Fact]
    public void Run_whose_every_checkpoint_is_damaged_does_not_begin_anew()
    {
        using var run = new RunFolder();
        run.Train(run.Options(10));
        foreach (string folder in Directory.GetDirectories(run.Checkpoints)) Damage(Path.Combine(folder, "model.safetensors"), "flip");
        var error = Assert.Throws<InvalidDataException>(() => run.Train(run.Options(10)));
        Assert.Contains("none of the 2 checkpoints is valid (step-000000010: model.safetensors does not have the hash", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Newest_checkpoints_stay_and_unfinished_ones_go()
    {
        using var run = new RunFolder();
        Directory.CreateDirectory(Path.Combine(run.Checkpoints, "step-000000010.tmp"));
        File.WriteAllText(Path.Combine(run.Checkpoints, "step-000000010.tmp", "model.safetensors"), "half");
        run.Train(run.Options(30) with { KeepCheckpoints = 2 });
        Assert.Equal(["step-000000025", "step-000000030"], Directory.GetDirectories(run.Checkpoints).Select(folder => Path.GetFileName(folder)).Order());
    }

    [Fact]
    public void Second_process_on_a_run_folder_is_refused()
    {
        using var run = new RunFolder();
        IOException? error = null;
        run.Train(run.Options(5), watch: trainer => trainer.StepTaken += _ => error ??= Assert.Throws<IOException>(() => run.Train(run.Options(5))));
        Assert.Equal($"{run.Path}: another process ({Environment.ProcessId}) is training in this run folder; wait for it, stop it, or choose another folder.", error!.Message);
    }

    [Fact]
    public void Full_disk_leaves_the_older_checkpoint_and_the_run_goes_on_from_it()
    {
        using RunFolder straight = new(), full = new();
        (_, byte[] expected) = straight.Train(straight.Options(15));
        // A folder that is a file stands in for the full disk.
        string temporary = Path.Combine(full.Checkpoints, "step-000000010.tmp");
        var error = Assert.Throws<IOException>(() => full.Train(full.Options(15), watch: trainer => trainer.StepTaken += report => { if (report.Step == 8) File.WriteAllText(temporary, ""); }));
        Assert.Contains("step-000000010: the checkpoint could not be written (", error.Message, StringComparison.Ordinal);
        Assert.EndsWith("older ones are as they were, the newest is step-000000005. Make room or choose another folder, then resume.", error.Message, StringComparison.Ordinal);
        File.Delete(temporary);
        Assert.Equal(["step-000000005"], Directory.GetDirectories(full.Checkpoints).Select(folder => Path.GetFileName(folder)));
        Assert.Equal(expected, full.Train(full.Options(15)).Weights);
    }

    [Fact]
    public void Checkpoint_that_fails_half_way_leaves_nothing_behind()
    {
        using var run = new RunFolder();
        run.Train(run.Options(5));
        var store = new CheckpointStore(run.Checkpoints);
        var error = Assert.Throws<IOException>(() => store.Save(6, folder =>
        {
            File.WriteAllText(Path.Combine(folder, "model.safetensors"), "half");
            throw new IOException("No space left on device");
        }));
        Assert.Contains("step-000000006: the checkpoint could not be written (No space left on device); older ones are as they were, the newest is step-000000005.", error.Message, StringComparison.Ordinal);
        Assert.Equal(["step-000000005"], Directory.GetDirectories(run.Checkpoints).Select(folder => Path.GetFileName(folder)));
        Assert.EndsWith("step-000000005", store.FindNewest(out _), StringComparison.Ordinal);
        Assert.Throws<InvalidOperationException>(() => store.Save(5, _ => { }));
    }

    [Fact]
    public void Run_folder_that_cannot_be_made_is_a_clear_error()
    {
        using var run = new RunFolder();
        string file = Path.Combine(run.Path, "file");
        File.WriteAllText(file, "");
        var error = Assert.Throws<IOException>(() => run.Train(run.Options(5) with { RunFolder = Path.Combine(file, "run") }));
        Assert.Contains("the run folder cannot be made (", error.Message, StringComparison.Ordinal);
        Assert.EndsWith("choose another.", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Checkpoint_of_another_model_is_refused_and_names_the_difference()
    {
        using var run = new RunFolder();
        run.Train(run.Options(5));
        using TinyModel wide = new(width: 32), scaled = new(scale: 2), narrow = RunFolder.NewModel(DType.BFloat16);
        Assert.Contains("config.json: width is 16 in the checkpoint, 32 in the model. It is the checkpoint of another model.", Refuses(wide), StringComparison.Ordinal);
        Assert.Contains("scale is 1.0 in the checkpoint, 2.0 in the model. It is the checkpoint of another model.", Refuses(scaled), StringComparison.Ordinal);
        Assert.Contains("tensor 'embedding.weight' F32 [256, 16], but the model has it as BFloat16 [256, 16] on cpu. It is the checkpoint of another model.", Refuses(narrow), StringComparison.Ordinal);

        string Refuses(TinyModel model)
        {
            if (!model.Parameters[0].IsMaterialized) model.Initialize(Device.Cpu, 7);
            byte[] before = RunFolder.Weights(model);
            string message = Assert.Throws<InvalidDataException>(() => run.NewTrainer(model, run.Options(5)).Run(TestContext.Current.CancellationToken)).Message;
            Assert.Equal(before, RunFolder.Weights(model));
            return message;
        }
    }

    [Fact]
    public void Other_options_or_data_are_refused_unless_accepted()
    {
        using var run = new RunFolder();
        run.Train(run.Options(5));
        var error = Assert.Throws<InvalidDataException>(() => run.Train(run.Options(10)));
        Assert.Contains("was trained with steps 5, now it is 10.", error.Message, StringComparison.Ordinal);
        using TinyModel model = RunFolder.NewModel();
        error = Assert.Throws<InvalidDataException>(() => run.NewTrainer(model, run.Options(5), run.Windows(seed: 6)).Run(TestContext.Current.CancellationToken));
        Assert.Contains("was trained on other data: windows(", error.Message, StringComparison.Ordinal);
        Assert.Equal(10, run.Train(run.Options(10) with { AcceptChanges = true }).Result.Step);
        Assert.Contains("holds a run already", Assert.Throws<IOException>(() => run.Train(run.Options(10) with { Resume = false })).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Tied_copies_load_and_unknown_tensors_do_not()
    {
        using var run = new RunFolder();
        using TinyModel model = RunFolder.NewModel(), other = RunFolder.NewModel();
        model.Parameters[0].Value.Clear();
        var tensors = model.Parameters.Select(parameter => ParameterFiles.ToSafetensors(parameter.Name, parameter.Value)).ToList();
        ZEngine.Models.WeightFiles.Save(run.Path, [.. tensors, ParameterFiles.ToSafetensors("copy.weight", model.Parameters[0].Value)]);
        ParameterFiles.Load(run.Path, other.Parameters);
        Assert.Equal(RunFolder.Weights(model), RunFolder.Weights(other));

        using TinyModel third = RunFolder.NewModel();
        byte[] before = RunFolder.Weights(third);
        using Tensor stray = Tensor.From<float>([1, 2, 3], [3], Device.Cpu);
        ZEngine.Models.WeightFiles.Save(run.Path, [.. tensors, ParameterFiles.ToSafetensors("stray", stray)]);
        Assert.Contains("tensor 'stray' F32 [3] is not part of the model.", Assert.Throws<InvalidDataException>(() => ParameterFiles.Load(run.Path, third.Parameters)).Message, StringComparison.Ordinal);
        ZEngine.Models.WeightFiles.Save(run.Path, [.. tensors.Skip(1)]);
        Assert.Contains("tensor 'embedding.weight' is missing", Assert.Throws<InvalidDataException>(() => ParameterFiles.Load(run.Path, third.Parameters)).Message, StringComparison.Ordinal);
        Assert.Equal(before, RunFolder.Weights(third));
    }

    private static void Damage(string path, string how)
    {
        switch (how)
        {
            case "delete": File.Delete(path); break;
            case "add": File.WriteAllText(path, "{}"); break;
            default:
                byte[] bytes = File.ReadAllBytes(path);
                bytes[^20] ^= 1;
                File.WriteAllBytes(path, how == "cut" ? bytes[..^20] : bytes);
                break;
        }
    }
}
