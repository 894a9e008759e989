using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using ZEngine.Models;

namespace ZEngine.Bench;

/// <summary>From the start of the process <c>zengine generate</c> to the first character it writes, with models of 100 MB on disk.</summary>
internal static class StartTime
{
    private const string DropCaches = "/proc/sys/vm/drop_caches";
    private const int Vocabulary = 8192;

    public static int Run(int rounds)
    {
        string root = typeof(StartTime).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(item => item.Key == "RepositoryRoot").Value!;
        string program = Path.Combine(root, "src", "ZEngine.Cli", "bin", "Release", "net10.0", "ZEngine.Cli.dll");
        if (!File.Exists(program))
        {
            Console.Error.WriteLine($"{program} is missing; build the solution first.");
            return 2;
        }
        string folder = Directory.CreateTempSubdirectory("zengine-start-").FullName;
        try
        {
            Tokenizer tokenizer = BpeTrainer.Train(Directory.EnumerateFiles(Path.Combine(root, "src"), "*.cs", SearchOption.AllDirectories).Order(StringComparer.Ordinal).Select(File.ReadAllText), Vocabulary, ["<eos>"]);
            Console.WriteLine($"{CpuDevice.Threads} threads, .NET {Environment.Version}; medians of {rounds} processes");
            Console.WriteLine("| weights | MB on disk | page cache | first character, ms |");
            Console.WriteLine("|---|--:|---|--:|");
            foreach ((DType dtype, int layers) in ((DType, int)[])[(DType.Float32, 7), (DType.BFloat16, 15)]) Measure(Store(folder, tokenizer, dtype, layers), dtype, program, rounds);
            return 0;
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static string Store(string folder, Tokenizer tokenizer, DType dtype, int layers)
    {
        string place = Path.Combine(folder, dtype.ToString());
        using var model = new Llama(new LlamaConfig
        {
            VocabularySize = Vocabulary, HiddenSize = 512, IntermediateSize = 1536, Layers = layers, Heads = 8, KeyValueHeads = 4, HeadDimension = 64, IsTied = true,
        });
        model.Initialize(Device.Cpu, 1, dtype);
        model.Save(place);
        tokenizer.Save(place);
        return place;
    }

    private static void Measure(string folder, DType dtype, string program, int rounds)
    {
        double size = Directory.EnumerateFiles(folder, "*.safetensors").Sum(file => new FileInfo(file).Length) / 1e6;
        var cold = new List<double>();
        var warm = new List<double>();
        for (int round = 0; round < rounds; round++)
        {
            if (TryDropCaches()) cold.Add(FirstCharacter(program, folder));
            warm.Add(FirstCharacter(program, folder));
        }
        foreach ((string cache, List<double> times) in ((string, List<double>)[])[("dropped", cold), ("warm", warm)])
        {
            times.Sort();
            string text = times.Count == 0 ? "not measured: only root can drop it" : times[times.Count / 2].ToString("F0", CultureInfo.InvariantCulture);
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"| {dtype} | {size:F0} | {cache} | {text} |"));
        }
    }

    private static double FirstCharacter(string program, string folder)
    {
        var start = new ProcessStartInfo("dotnet", [program, "generate", folder, "public static void Main", "--max-tokens", "8", "--temperature", "0"])
        {
            RedirectStandardOutput = true, RedirectStandardError = true,
        };
        var clock = Stopwatch.StartNew();
        using Process process = Process.Start(start)!;
        int first = process.StandardOutput.Read();
        double elapsed = clock.Elapsed.TotalMilliseconds;
        process.StandardOutput.ReadToEnd();
        string errors = process.StandardError.ReadToEnd();
        process.WaitForExit();
        return first >= 0 && process.ExitCode == 0 ? elapsed : throw new InvalidOperationException($"zengine generate ended with {process.ExitCode}: {errors}");
    }

    /// <summary>Makes the next process read the runtime, the program and the model from disk; needs root, on Linux.</summary>
    private static bool TryDropCaches()
    {
        if (!File.Exists(DropCaches)) return false;
        try
        {
            using (Process sync = Process.Start("sync")) sync.WaitForExit();
            File.WriteAllText(DropCaches, "1");
            return true;
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            return false;
        }
    }
}
