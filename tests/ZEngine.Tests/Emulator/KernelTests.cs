using System.Text.RegularExpressions;
using ZEngine.Emulator;
using ZEngine.Tests.Emulator.Scenarios;
using ZEngine.Tests.Interop;

namespace ZEngine.Tests.Emulator;

/// <summary>Whole kernels against plain loops, clean under every check, and with the same bits however they are run.</summary>
public sealed partial class KernelTests
{
    public static TheoryData<string> Scenarios => [.. KernelScenario.All.Select(scenario => scenario.Name)];

    private static readonly EmulatorOptions[] Ways =
    [
        new() { Checks = EmulatorChecks.None },
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
        string? first = null;
        foreach (EmulatorOptions way in Ways)
        {
            string digest = DigestOf(name, way);
            first ??= digest;
            Assert.True(first == digest, $"other bits under {way}");
        }
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
            var observer = new EmulatorObserver();
            foreach (KernelScenario scenario in KernelScenario.All.Where(scenario => scenario.File == Path.GetFileName(file))) scenario.Run(new EmulatorOptions { Observer = observer });
            foreach (Match kernel in KernelName().Matches(File.ReadAllText(file)))
                if (!observer.Launched.Any(launched => launched.Contains(kernel.Groups["name"].Value, StringComparison.Ordinal))) missing.Add($"{kernel.Groups["name"].Value} of {Path.GetFileName(file)}");
        }
        Assert.True(missing.Count == 0, $"no KernelScenario launches {string.Join(", ", missing)}");
    }

    internal static string[] KernelFiles => Directory.GetFiles(Path.Combine(Compiler.RepositoryRoot, "kernels"), "*.cu");

    [GeneratedRegex(@"__global__\s+void\s+(__launch_bounds__\([^)]*\)\s+)?(?<name>\w+)\s*\(")]
    private static partial Regex KernelName();
}
