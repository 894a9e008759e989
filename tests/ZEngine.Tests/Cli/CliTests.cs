using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text.Json;
using System.Text.RegularExpressions;
using ZEngine.Models;

namespace ZEngine.Tests.Cli;

/// <summary>The verbs from the arguments to the files they leave, and every exit code.</summary>
public sealed partial class CliTests : IDisposable
{
    private readonly Zengine _zengine = new();

    public void Dispose() => _zengine.Dispose();

    [Fact]
    public void Train_leaves_a_record_a_picture_and_a_model_that_generates_the_same_text_twice()
    {
        string log = Zengine.Succeed(_zengine.Train("run", 12));
        Assert.Contains("Held-out byte-unigram entropy:", log, StringComparison.Ordinal);
        Assert.Equal(12, File.ReadLines(_zengine.Path("run", "metrics.jsonl")).Count(line => line.Contains("\"loss\"", StringComparison.Ordinal)));
        Assert.StartsWith("<svg", File.ReadAllText(_zengine.Path("run", "loss.svg")), StringComparison.Ordinal);
        string model = _zengine.Path("run", "model");
        foreach (string file in (string[])["config.json", "model.safetensors", "tokenizer.json"]) Assert.True(File.Exists(Path.Combine(model, file)), file);

        // A finished run resumes to itself.
        byte[] weights = File.ReadAllBytes(Path.Combine(model, "model.safetensors"));
        Zengine.Succeed("train", "--resume", "--out", _zengine.Path("run"));
        Assert.Equal(weights, File.ReadAllBytes(Path.Combine(model, "model.safetensors")));

        string[] generate = ["generate", _zengine.Path("run"), "the state é", "--max-tokens", "20", "--seed", "7"];
        string text = Zengine.Succeed(generate);
        Assert.Equal(text, Zengine.Succeed(generate));
        Assert.NotEqual(text, Zengine.Succeed([.. generate[..^1], "8"]));
        (int code, string piped, string error) = Zengine.Run(["generate", model, "--max-tokens", "20", "--seed", "7"], input: "the state é");
        Assert.Equal((0, text), (code, piped));
        Assert.Matches(@"^\d+ tokens read in [\d.]+ s; 20 written, [\d.]+ tokens/s\.", error);
    }

    [Fact]
    public void Tokenizer_learnt_from_the_data_goes_with_the_model()
    {
        Zengine.Succeed(_zengine.Train("run", 4, "--tokenizer", "bpe:300"));
        Tokenizer tokenizer = Tokenizer.Load(_zengine.Path("run", "model"));
        Assert.Equal(300, tokenizer.VocabularySize);
        Assert.NotNull(tokenizer.EosToken);
        Zengine.Succeed("generate", _zengine.Path("run"), "the", "--max-tokens", "5");
        // The exported model is something to go on from, with its own tokenizer.
        Zengine.Succeed("train", _zengine.Text, "--model", _zengine.Path("run", "model"), "--steps", "2", "--batch", "2", "--length", "32", "--held-out-block", "512", "--out", _zengine.Path("more"));
        Assert.Equal(300, Tokenizer.Load(_zengine.Path("more", "model")).VocabularySize);
    }

    [Fact]
    public void Settings_come_from_a_file_and_flags_win()
    {
        string config = _zengine.Path("config.json");
        File.WriteAllText(config, $$"""{ "data": {{JsonSerializer.Serialize(_zengine.Path("*.txt"))}}, "model": "tiny-hybrid", "steps": 9, "batch": 2, "length": 32, "learning_rate": 5e-3, "held_out_block": 512 }""");
        Zengine.Succeed("train", "--config", config, "--steps", "3", "--out", _zengine.Path("run"));
        using JsonDocument run = JsonDocument.Parse(File.ReadAllBytes(_zengine.Path("run", "run.json")));
        Assert.Equal(3, run.RootElement.GetProperty("steps").GetInt32());
        Assert.Equal(2, run.RootElement.GetProperty("batch").GetInt32());
        Assert.Equal(0.005f, run.RootElement.GetProperty("learning_rate").GetSingle());
        // What a run wrote down is itself a configuration.
        Zengine.Succeed("train", "--config", _zengine.Path("run", "run.json"), "--out", _zengine.Path("again"));
        Assert.Equal(File.ReadAllBytes(_zengine.Path("run", "model", "model.safetensors")), File.ReadAllBytes(_zengine.Path("again", "model", "model.safetensors")));
    }

    /// <summary>The same verbs on the CUDA device over the emulator: the losses of the CPU, a run that is stopped and resumed, a model to go on from, and text.</summary>
    [Fact]
    public void Device_is_chosen_by_name_and_computes_the_same()
    {
        _ = Interop.Compiler.Nvrtc;                            // fetched where the machine has none
        string[] Train(string run, int steps, string device = "cpu", string model = "tiny-hybrid") =>
        [
            "train", _zengine.Text, "--model", model, "--device", device, "--steps", $"{steps}", "--batch", "1", "--length", "8", "--warmup", "1", "--held-out-block", "512", "--evaluation-interval", "0",
            "--checkpoint-interval", "2", "--out", _zengine.Path(run),
        ];
        double[] Losses(string run) => [.. File.ReadLines(_zengine.Path(run, "metrics.jsonl")).Select(line => JsonDocument.Parse(line).RootElement).Where(line => line.TryGetProperty("loss", out _)).Select(line => line.GetProperty("loss").GetDouble())];
        Zengine.Succeed(Train("cpu", 4));
        string log = Zengine.Succeed(Train("whole", 4, "emulator"));
        Assert.Contains("cuda:0", log, StringComparison.Ordinal);
        double[] want = Losses("cpu"), got = Losses("whole");
        Assert.Equal(4, got.Length);
        for (int step = 0; step < got.Length; step++) Assert.Equal(want[step], got[step], 1e-4 * (step + 1));

        // Without its last checkpoint the run goes on from the one before, to the same bits.
        string weights = _zengine.Path("whole", "model", "model.safetensors"), last = Directory.GetDirectories(_zengine.Path("whole", "checkpoints")).Order(StringComparer.Ordinal).Last();
        byte[] bits = File.ReadAllBytes(weights);
        Directory.Delete(last, recursive: true);
        File.Delete(weights);
        Assert.Contains("the run goes on from step 2", Zengine.Succeed("train", "--resume", "--out", _zengine.Path("whole")), StringComparison.Ordinal);
        Assert.Equal(bits, File.ReadAllBytes(weights));

        Zengine.Succeed(Train("more", 1, "emulator", _zengine.Path("whole", "model")));
        string[] generate = ["generate", _zengine.Path("whole"), "the", "--max-tokens", "3", "--temperature", "0", "--device"];
        Assert.Equal(Zengine.Succeed([.. generate, "cpu"]), Zengine.Succeed([.. generate, "emulator"]));
        Assert.Contains("the devices are cpu, cuda, cuda:N and emulator", Zengine.Run(Train("none", 1, "gpu")).Error, StringComparison.Ordinal);
    }

    [Fact]
    public void Demo_trains_and_writes()
    {
        Directory.CreateDirectory(_zengine.Path("texts"));
        for (int i = 0; i < 4; i++) File.Copy(_zengine.Text, _zengine.Path("texts", $"{i}.txt"));
        string log = Zengine.Succeed("demo", _zengine.Path("texts"), "--steps", "1", "--out", _zengine.Path("demo"));
        Assert.Contains("bits per byte", log, StringComparison.Ordinal);
        Assert.Contains("»", log, StringComparison.Ordinal);
    }

    [Fact]
    public void Info_describes_the_machine_and_a_model_without_weights()
    {
        Assert.Contains("SIMD", Zengine.Succeed("info"), StringComparison.Ordinal);
        string config = _zengine.Path("config.json");
        Zengine.Succeed(_zengine.Train("run", 1));
        string text = File.ReadAllText(_zengine.Path("run", "model", "config.json"));
        // So large that memory for its weights would not be found.
        File.WriteAllText(config, text.Replace("\"vocab_size\": 256", "\"vocab_size\": 2000000000, \"surplus_key\": 1", StringComparison.Ordinal));
        (int code, string table, string error) = Zengine.Run(["info", config]);
        Assert.Equal(0, code);
        foreach (string part in (string[])["Mamba-2 layer", "shared block", "together", "vocabulary 2,000,000,000"]) Assert.Contains(part, table, StringComparison.Ordinal);
        Assert.Contains("warning:", error, StringComparison.Ordinal);
        Assert.Contains("surplus_key", error, StringComparison.Ordinal);
        Assert.DoesNotContain("hidden_size", error, StringComparison.Ordinal);
    }

    /// <summary>Of each library that is missing: what was tried, what the loader said of it, and how to get it.</summary>
    [Fact]
    public void Info_says_which_libraries_were_tried_and_how_to_get_them()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "the loader's words are those of Linux");
        string[] program = Zengine.Program("info");
        var start = new ProcessStartInfo(program[0], program[1..]);
        foreach (string variable in (string[])["ZENGINE_LIBCUDA", "ZENGINE_NVRTC", "ZENGINE_CUBLASLT"]) start.Environment[variable] = $"/no-{variable}";
        using Process process = Zengine.Start(start);
        string table = string.Join(' ', process.StandardOutput.ReadToEnd().Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
        foreach (string part in (string[])["/no-ZENGINE_LIBCUDA: cannot open shared object file", "It comes with the GPU's driver", "NVRTC", "/no-ZENGINE_NVRTC", "wheel nvidia-cuda-nvrtc-cu12",
            "/no-ZENGINE_CUBLASLT: cannot open shared object file", "Python wheel nvidia-cublas-cu12 or Debian's libcublaslt12", "the engine's own kernels multiply", "Packed kernels"])
            Assert.Contains(part, table, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(2, "See zengine --help.", "fly")]
    [InlineData(2, "--stepps", "train", "TEXT", "--stepps", "3")]
    [InlineData(2, "--steps must be at least 1, got 0.", "train", "TEXT", "--steps", "0")]
    [InlineData(2, "learning-rate", "train", "TEXT", "--learning-rate", "fast")]
    [InlineData(2, "Name the text files", "train", "--out", "NEW")]
    [InlineData(2, "there is no run to resume", "train", "--resume", "--out", "NEW")]
    [InlineData(2, "SIZE must be", "train", "TEXT", "--tokenizer", "bpe:x", "--out", "NEW")]
    [InlineData(2, "give more text", "train", "TEXT", "--length", "100000", "--out", "NEW")]
    [InlineData(3, "there is no such file or folder", "train", "NEW/nothing.txt")]
    [InlineData(3, "no such model", "train", "TEXT", "--model", "huge-hybrid", "--out", "NEW")]
    [InlineData(3, "\"stepps\" is no setting", "train", "--config", "UNKNOWN_KEY")]
    [InlineData(3, "steps", "train", "--config", "WRONG_VALUE")]
    [InlineData(3, "WRONG_JSON", "train", "--config", "WRONG_JSON")]
    [InlineData(3, "there is no model here", "generate", "NEW", "hello")]
    [InlineData(3, "WRONG_JSON", "info", "WRONG_JSON")]
    [InlineData(2, "--check needs a model folder", "info", "--check")]
    [InlineData(3, "model_type", "info", "UNKNOWN_KEY")]
    public void Errors_are_one_line_and_an_exit_code(int code, string part, params string[] args)
    {
        File.WriteAllText(_zengine.Path("UNKNOWN_KEY"), """{ "stepps": 3 }""");
        File.WriteAllText(_zengine.Path("WRONG_VALUE"), """{ "steps": true }""");
        File.WriteAllText(_zengine.Path("WRONG_JSON"), """{ "steps": """);
        string[] real = [.. args.Select(argument => argument == "TEXT" ? _zengine.Text : argument.Contains("NEW", StringComparison.Ordinal) || File.Exists(_zengine.Path(argument)) ? _zengine.Path(argument) : argument)];
        (int actual, string _, string error) = Zengine.Run(real);
        Assert.Equal(code, actual);
        Assert.Matches(@"\Azengine: [^\n]+\n\z", error.ReplaceLineEndings("\n"));
        Assert.Contains(part, error, StringComparison.Ordinal);
        Assert.False(Directory.Exists(_zengine.Path("NEW")));
    }

    [Fact]
    public void Damaged_files_of_a_model_are_bad_input()
    {
        Zengine.Succeed(_zengine.Train("run", 1));
        Fails(2, "holds a run already", _zengine.Train("run", 1));
        Fails(3, "batch 2, now it is 3", "train", "--resume", "--out", _zengine.Path("run"), "--batch", "3");
        string model = _zengine.Path("run", "model"), weights = Path.Combine(model, "model.safetensors"), tokenizer = Path.Combine(model, "tokenizer.json");
        using (FileStream stream = File.OpenWrite(weights)) stream.SetLength(stream.Length - 100);
        Fails(3, "model.safetensors", "generate", model, "hello");
        File.WriteAllText(tokenizer, "{");
        Fails(3, "tokenizer.json", "generate", model, "hello");
        File.Delete(tokenizer);
        Fails(3, "there is no tokenizer.json here", "generate", model, "hello");

        static void Fails(int code, string part, params string[] args)
        {
            (int actual, string _, string error) = Zengine.Run(args);
            Assert.Equal(code, actual);
            Assert.Matches(@"\Azengine: [^\n]+\n\z", error.ReplaceLineEndings("\n"));
            Assert.Contains(part, error, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Weights_that_are_no_numbers_are_named()
    {
        Zengine.Succeed(_zengine.Train("run", 1));
        string folder = _zengine.Path("run", "model");
        Assert.Contains("complete and finite", Zengine.Succeed("info", folder, "--check"), StringComparison.Ordinal);
        using (LanguageModel model = LanguageModel.Load(folder, Device.Cpu))
        {
            Parameter broken = model.Parameters.First(parameter => parameter.Name.EndsWith("A_log", StringComparison.Ordinal));
            ZEngine.Ops.Fill(broken.Value, float.NaN);
            model.Save(_zengine.Path("broken"));
        }
        File.Copy(Path.Combine(folder, "tokenizer.json"), _zengine.Path("broken", "tokenizer.json"));
        string[][] commands =
        [
            ["generate", _zengine.Path("broken"), "the"],
            ["info", _zengine.Path("broken"), "--check"],
            ["train", _zengine.Text, "--model", _zengine.Path("broken"), "--steps", "1", "--batch", "2", "--length", "32", "--held-out-block", "512", "--out", _zengine.Path("more")],
        ];
        foreach (string[] command in commands)
        {
            (int code, string _, string error) = Zengine.Run(command);
            Assert.Equal(3, code);
            Assert.Matches(@"\Azengine: [^\n]+NaN or infinite numbers in [^\n]*A_log; [^\n]+\n\z", error.ReplaceLineEndings("\n"));
        }
        Zengine.Succeed("info", _zengine.Path("broken"));          // reads no weights
    }

    [Fact]
    public async Task Interrupted_process_saves_and_resumes_to_the_same_bits()
    {
        if (OperatingSystem.IsWindows()) Assert.Skip("Windows has no signal that one process sends another.");
        const int Steps = 120;
        Zengine.Succeed(_zengine.Train("straight", Steps));
        using (Process process = Zengine.Start(_zengine.Train("stopped", Steps)))
        {
            Task<string> errors = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
            string? line;
            while ((line = await process.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken)) is not null && !StepLine().IsMatch(line)) { }
            Assert.Equal(0, Kill(process.Id, IsInterruptIgnored() ? Terminate : Interrupt));
            string rest = line + await process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
            await process.WaitForExitAsync(TestContext.Current.CancellationToken);
            string error = await errors;
            Assert.True(process.ExitCode == 130, $"exit code {process.ExitCode}: {rest}{error}");
            Assert.Contains("Go on with: zengine train --resume --out", rest, StringComparison.Ordinal);
            Assert.Empty(error);
        }
        Assert.False(Directory.Exists(_zengine.Path("stopped", "model")));
        Zengine.Succeed("train", "--resume", "--out", _zengine.Path("stopped"));
        Assert.Equal(File.ReadAllBytes(_zengine.Path("straight", "model", "model.safetensors")), File.ReadAllBytes(_zengine.Path("stopped", "model", "model.safetensors")));
        Assert.Equal(File.ReadLines(_zengine.Path("straight", "metrics.jsonl")).Count(), File.ReadLines(_zengine.Path("stopped", "metrics.jsonl")).Count());
    }

    private const int Interrupt = 2, Terminate = 15;

    /// <summary>A shell that starts this test in the background lets it ignore Ctrl+C, and its children with it.</summary>
    private static bool IsInterruptIgnored()
    {
        if (!OperatingSystem.IsLinux()) return false;
        string mask = File.ReadLines("/proc/self/status").First(line => line.StartsWith("SigIgn:", StringComparison.Ordinal))[7..].Trim();
        return (Convert.ToUInt64(mask, 16) >> (Interrupt - 1) & 1) == 1;
    }

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int process, int signal);

    [GeneratedRegex(@"^step +[1-9]\d*/")]
    private static partial Regex StepLine();
}
