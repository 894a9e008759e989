using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Text.RegularExpressions;
using ZEngine.Emulator;
using ZEngine.Tests.Emulator.Scenarios;
using ZEngine.Tests.Interop;

namespace ZEngine.Tests.Emulator;

/// <summary>Whole kernels against plain loops, clean under every check, and with the same bits however they are run.</summary>
public sealed partial class KernelTests
{
    public static TheoryData<string> Scenarios => [.. KernelScenario.All.Select(scenario => scenario.Name)];

    // Beside the plain way, that of KernelScenario.Observed.
    private static readonly EmulatorOptions[] Ways =
    [
        new() { Checks = EmulatorChecks.All },
        new() { Checks = EmulatorChecks.All, Policy = SchedulingPolicy.Fair },
        new() { Checks = EmulatorChecks.Deep, Policy = SchedulingPolicy.Fair, Seed = 77 },
        new() { Checks = EmulatorChecks.All, Policy = SchedulingPolicy.Adversarial, Seed = 1 },
        new() { Checks = EmulatorChecks.All, Policy = SchedulingPolicy.Adversarial, Seed = 2 },
        new() { Checks = EmulatorChecks.Deep, Policy = SchedulingPolicy.Adversarial, Seed = 3 },
        new() { Checks = EmulatorChecks.Deep, Workers = 2 },
        new() { Checks = EmulatorChecks.Deep, Workers = 3, Policy = SchedulingPolicy.Adversarial, Seed = 4 },
    ];

    [Theory]
    [MemberData(nameof(Scenarios))]
    public void Is_right_and_clean_with_the_same_bits_in_all_ways(string name)
    {
        string plain = KernelScenario.Named(name).Observed.Digest;
        var digests = new string[Ways.Length];
        Parallel.For(0, Ways.Length, i => digests[i] = DigestOf(name, Ways[i]));
        foreach ((EmulatorOptions way, string digest) in Ways.Zip(digests)) Assert.True(plain == digest, $"other bits under {way}");
    }

    private const string DigestFile = "ZENGINE_EMU_DIGESTS";

    /// <summary>
    /// A second process without vectors of 512 bits, and a third without those of 256, run the same kernels and write down what they found.
    /// </summary>
    [Fact]
    public async Task The_same_bits_with_vectors_of_every_width()
    {
        var way = new EmulatorOptions { JitterApproximations = true };
        string[] Digests() => [.. KernelScenario.All.Select(scenario => $"{scenario.Name} {DigestOf(scenario.Name, way)}")];
        if (Environment.GetEnvironmentVariable(DigestFile) is { } file)
        {
            await File.WriteAllLinesAsync(file, Digests().Prepend(Vector512.IsHardwareAccelerated ? "512" : Vector256.IsHardwareAccelerated ? "256" : "128"), TestContext.Current.CancellationToken);
            return;
        }
        (string Width, Task<string[]> Lines)[] others =
        [
            .. from other in ((string Width, string[] Switches)[])[("256", ["EnableAVX512", "EnableAVX512F"]), ("128", ["EnableAVX512", "EnableAVX512F", "EnableAVX2", "EnableAVX"])]
               select (other.Width, Task.Run(() => LinesOf(other.Switches))),
        ];
        string[] digests = Digests();
        foreach ((string width, Task<string[]> task) in others)
        {
            string[] lines = await task;
            if (RuntimeInformation.ProcessArchitecture == Architecture.X64) Assert.Equal(width, lines[0]);
            Assert.Equal(digests, lines[1..]);
        }
    }

    private static string[] LinesOf(string[] switches)
    {
        string path = Path.GetTempFileName();
        try
        {
            RunSelf(path, switches);
            return File.ReadAllLines(path);
        }
        finally
        {
            File.Delete(path);
        }
    }

    private static void RunSelf(string digestFile, string[] switches)
    {
        string program = Environment.ProcessPath!, assembly = typeof(KernelTests).Assembly.Location;
        bool isHost = Path.GetFileNameWithoutExtension(program) == "dotnet";
        var start = new ProcessStartInfo(program, [.. isHost ? [assembly] : Array.Empty<string>(), "-noColor", "-parallel", "none", "-reporter", "zengine", "-method", $"*.{nameof(KernelTests)}.{nameof(The_same_bits_with_vectors_of_every_width)}"])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment[DigestFile] = digestFile;
        foreach (string name in switches) start.Environment["DOTNET_" + name] = "0";
        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        string said = process.StandardOutput.ReadToEnd() + error.Result;
        process.WaitForExit();
        Assert.True(process.ExitCode == 0 && new FileInfo(digestFile).Length > 0, $"the other process ended with {process.ExitCode}: {said}");
    }

    internal static string DigestOf(string name, EmulatorOptions way)
    {
        var observer = new EmulatorObserver();
        KernelScenario.Named(name).Run(way with { Observer = observer });
        Assert.NotEmpty(observer.Launched);
        return observer.Digest;
    }

    /// <summary>No kernel of the product is left out of these tests.</summary>
    [Fact]
    public void Every_kernel_is_launched_by_a_scenario()
    {
        var missing = new List<string>();
        foreach (string file in KernelFiles)
        {
            string[] launched = [.. KernelScenario.All.Where(scenario => scenario.File == Path.GetFileName(file)).SelectMany(scenario => scenario.Observed.Launched)];
            foreach (Match kernel in KernelName().Matches(File.ReadAllText(file)))
                if (!launched.Any(name => name.Contains(kernel.Groups["name"].Value, StringComparison.Ordinal))) missing.Add($"{kernel.Groups["name"].Value} of {Path.GetFileName(file)}");
        }
        Assert.True(missing.Count == 0, $"no KernelScenario launches {string.Join(", ", missing)}");
    }

    internal static string[] KernelFiles => Directory.GetFiles(Path.Combine(SourceTree.Root, "kernels"), "*.cu");

    [GeneratedRegex(@"__global__\s+void\s+(__(launch_bounds|maxnreg)__\([^)]*\)\s+)?(?<name>\w+)\s*\(")]
    private static partial Regex KernelName();
}
