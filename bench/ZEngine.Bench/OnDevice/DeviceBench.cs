using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Reflection;
using System.Text.Json;
using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Interop;

namespace ZEngine.Bench;

/// <summary>The words behind <c>device</c>.</summary>
internal sealed record DeviceBenchOptions(string Device, string Filter, DType Type, string? Torch, string? Json, string Tests, string Command, bool IsProbe)
{
    public static bool TryParse(ReadOnlySpan<string> words, [NotNullWhen(true)] out DeviceBenchOptions? options)
    {
        options = null;
        if (words.Length == 0 || words[0] is not ("cpu" or "emulator" or "cuda")) return false;
        (string filter, DType type, string? torch, string? json, string tests, string command, bool isProbe) = ("", words[0] == "cpu" ? DType.Float32 : DType.BFloat16, null, null, "not run", "", false);
        for (int i = 1; i < words.Length; i++)
        {
            string? value = i + 1 < words.Length ? words[i + 1] : null;
            if (words[i] == "--probe") isProbe = true;
            else if (words[i] == "--dtype" && value is "f32" or "bf16" or "f16") (type, i) = (value switch { "f32" => DType.Float32, "bf16" => DType.BFloat16, _ => DType.Float16 }, i + 1);
            else if (words[i] == "--torch" && value is not null) (torch, i) = (value, i + 1);
            else if (words[i] == "--json" && value is not null) (json, i) = (value, i + 1);
            else if (words[i] == "--tests" && value is not null) (tests, i) = (value, i + 1);
            else if (words[i] == "--command" && value is not null) (command, i) = (value, i + 1);
            else if (filter.Length == 0 && !words[i].StartsWith('-')) filter = words[i];
            else return false;
        }
        // The CPU computes in Float32 alone.
        if (words[0] == "cpu" && type != DType.Float32) return false;
        options = new DeviceBenchOptions(words[0], filter, type, torch, json, tests, command, isProbe);
        return true;
    }
}

/// <summary>What one row gave: a time and its share of the device's limit, or the counters of the emulator.</summary>
internal sealed record DeviceResult(string Op, string Pass, string Shape, string DType)
{
    public double? Ms { get; init; }
    public double? GBytesPerSecond { get; init; }
    public double? TFlopsPerSecond { get; init; }
    public double? ShareOfPeak { get; init; }
    public double? TorchMs { get; set; }
    public Dictionary<string, double>? TorchWays { get; set; }
    public string? TorchWay { get; set; }
    public double? RatioToTorch { get; set; }
    public int? Launches { get; init; }
    public double? BytesToMinimum { get; init; }
    public double? SectorsFilled { get; init; }
    public double? WideShare { get; init; }
    public double? SharedWavefronts { get; init; }
    public double? MatrixFlopsToFormula { get; init; }
}

/// <summary>Every op on one device: time as a share of what the device can do, beside PyTorch; on the emulator, counters.</summary>
internal static class DeviceBench
{
    /// <summary>There is no such device; <c>zengine-check</c> ends with the same code.</summary>
    public const int NoDevice = 3;

    private static readonly JsonSerializerOptions Json = new() { WriteIndented = true, PropertyNamingPolicy = JsonNamingPolicy.CamelCase, DefaultIgnoreCondition = System.Text.Json.Serialization.JsonIgnoreCondition.WhenWritingNull };

    public static int Run(DeviceBenchOptions options)
    {
        if (options.Device == "cuda" && !CudaDevice.IsAvailable)
        {
            Console.Error.WriteLine($"There is no CUDA device: {CudaDevice.UnavailableReason}");
            return NoDevice;
        }
        using var emulator = options.Device == "emulator" ? new EmulatedCudaDriver(new EmulatorOptions { Checks = EmulatorChecks.Counters, Workers = Environment.ProcessorCount }) : null;
        using Device device = options.Device == "cpu" ? Device.Cpu : CudaDevice.Open(0, emulator);
        var facts = Facts(device, options);
        foreach ((string name, string value) in facts) Console.WriteLine($"{name + ':',-12}{value}");
        if (options.IsProbe) return 0;

        using IDeviceClock clock = device is CudaDevice cuda ? emulator is null ? new CudaClock(cuda) : new CountingClock(cuda, emulator) : new CpuClock();
        DeviceSizes sizes = options.Device switch { "cpu" => DeviceSizes.Cpu, "emulator" => DeviceSizes.Emulator, _ => DeviceSizes.Gpu };
        DeviceRow[] rows = [.. DeviceRows.All(sizes, options.Type).Where(row => row.Op.Contains(options.Filter, StringComparison.OrdinalIgnoreCase))];
        if (rows.Length == 0)
        {
            Console.Error.WriteLine($"No op has '{options.Filter}' in its name.");
            return 2;
        }
        DeviceResult[] results = [.. rows.Select(row =>
        {
            using var operands = new DeviceOperands(device, options.Type);
            DeviceResult result = clock.Measure(row, options.Type, row.Prepare(operands));
            Console.Error.Write('.');
            return result;
        })];
        Console.Error.WriteLine();
        if (options.Torch is { } script)
        {
            device.Trim();                                     // the peer needs the memory
            facts.Add(("PyTorch", TorchPeer.Measure(script, rows, options.Type, results)));
        }
        facts.Add(("Limits", clock.Limits));
        Console.WriteLine($"{"Limits:",-12}{clock.Limits}\n");
        DeviceTable.Print(results);
        if (options.Json is { } path) Write(path, facts, results);
        return 0;
    }

    private static void Write(string path, List<(string Name, string Value)> facts, DeviceResult[] results)
    {
        if (Path.GetDirectoryName(path) is { Length: > 0 } folder) Directory.CreateDirectory(folder);
        File.WriteAllText(path, JsonSerializer.Serialize(new { facts = facts.ToDictionary(fact => JsonNamingPolicy.CamelCase.ConvertName(fact.Name.Replace(" ", "", StringComparison.Ordinal)), fact => fact.Value), results }, Json) + "\n");
        Console.WriteLine($"\nWritten to {path}.");
    }

    private static List<(string Name, string Value)> Facts(Device device, DeviceBenchOptions options)
    {
        List<(string, string)> facts =
        [
            ("Date", DateTime.UtcNow.ToString("yyyy-MM-dd HH:mm'Z'", CultureInfo.InvariantCulture)), ("Command", options.Command.Length > 0 ? options.Command : $"ZEngine.Bench {string.Join(' ', Environment.GetCommandLineArgs()[1..])}"),
            ("ZEngine", typeof(Tensor).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "unknown"), ("Machine", Machine.Describe()), ("Tests", options.Tests), ("DType", options.Type.ToString()),
        ];
        if (device is not CudaDevice cuda) return facts;
        facts.Add(("Device", $"{cuda.Description}, sm_{cuda.Architecture}, {cuda.Multiprocessors} multiprocessors"));
        facts.Add(("Driver", cuda.Enter().Description));
        facts.Add(("Kernels", KernelsFrom()));
        facts.Add(("Products", cuda.MatMulSource));
        return facts;
    }

    private static string KernelsFrom()
    {
        try
        {
            return $"NVRTC {Nvrtc.Load().Version}";
        }
        catch (NativeLibraryException)
        {
            return PackedKernels.Describe();
        }
    }
}
