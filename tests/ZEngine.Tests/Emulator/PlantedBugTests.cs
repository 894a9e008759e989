using System.Globalization;
using ZEngine.Emulator;
using ZEngine.Interop;
using ZEngine.Tests.Interop;
using Xunit;

namespace ZEngine.Tests.Emulator;

/// <summary>Every planted bug is found, as the right kind and at the right source line; its correct twin is silent under all policies.</summary>
public sealed class PlantedBugTests
{
    private sealed record Case(string Name, FaultKind Kind, int Grid, int Block, int Shared, int N, int Line);

    private static readonly string[] Lines = Sources.Read("PlantedBugs.cu").Split('\n');
    private static readonly Dictionary<string, Case> Cases = ReadCases();
    internal static readonly Lazy<ModuleImage> Faulty = new(() => Compile("//ok")), Correct = new(() => Compile("//bug"));

    // Lines are blanked, never removed, so that numbers stay.
    private static ModuleImage Compile(string dropped) => Compiler.Compile(new CompileRequest
    {
        Name = "PlantedBugs.cu", Architecture = "compute_80", Source = string.Join('\n', Lines.Select(line => line.Contains(dropped, StringComparison.Ordinal) ? "" : line)),
    });

    private static Dictionary<string, Case> ReadCases()
    {
        var cases = new Dictionary<string, Case>();
        for (int k = 0; k < Lines.Length; k++)
        {
            if (!Lines[k].StartsWith("//case ", StringComparison.Ordinal)) continue;
            string[] words = Lines[k].Split(' ');
            int here = Array.FindIndex(Lines, k, line => line.Contains("//here", StringComparison.Ordinal)) + 1;
            int Number(int at) => int.Parse(words[at], CultureInfo.InvariantCulture);
            cases.Add(words[1], new Case(words[1], Enum.Parse<FaultKind>(words[2]), Number(3), Number(4), Number(5), Number(6), here));
        }
        return cases;
    }

    public static TheoryData<string> Names => [.. Cases.Keys];

    private static IReadOnlyList<FaultReport> Run(ModuleImage image, Case c, SchedulingPolicy policy, ulong seed)
    {
        using var machine = new Machine(image, new EmulatorOptions { Policy = policy, Seed = seed, Checks = EmulatorChecks.All, WatchdogInstructions = 200_000 });
        DevicePointer input = machine.Upload<int>([.. Enumerable.Range(0, c.N)], "in"), output = machine.Empty<int>(c.N, "out");
        return machine.Run(c.Name, new LaunchConfiguration(c.Grid, c.Block, c.Shared), input, output, c.N);
    }

    [Fact]
    public void There_are_at_least_sixty() => Assert.True(Cases.Count >= 60, $"{Cases.Count} cases");

    [Theory]
    [MemberData(nameof(Names))]
    public void Bug_is_found_at_its_line(string name)
    {
        Case c = Cases[name];
        foreach (SchedulingPolicy policy in Enum.GetValues<SchedulingPolicy>())
        {
            IReadOnlyList<FaultReport> faults = Run(Faulty.Value, c, policy, 7);
            Assert.True(faults.Any(f => f.Kind == c.Kind && (f.SourceLine == c.Line || f.OtherSourceLine == c.Line)),
                $"{policy}: wanted {c.Kind} at line {c.Line}, got{(faults.Count == 0 ? " nothing" : "")} {string.Join("\n", faults)}");
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Twin_is_silent(string name)
    {
        foreach (SchedulingPolicy policy in Enum.GetValues<SchedulingPolicy>())
            for (ulong seed = 1; seed <= (policy == SchedulingPolicy.Adversarial ? 3u : 1u); seed++)
                Assert.Empty(Run(Correct.Value, Cases[name], policy, seed));
    }

    [Fact]
    public void Same_seed_gives_the_same_report()
    {
        foreach (Case c in Cases.Values)
        {
            string First() => string.Join("\n", Run(Faulty.Value, c, SchedulingPolicy.Adversarial, 11));
            Assert.Equal(First(), First());
        }
    }
}
