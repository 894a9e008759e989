using ZEngine.Emulator;
using ZEngine.Tests.Emulator.Scenarios;
using ZEngine.Tests.Interop;

namespace ZEngine.Tests.Emulator;

/// <summary>
/// Each barrier, fence, commit and wait of every kernel is deleted in turn: a check must flag the kernel, or its result must be wrong. What
/// survives is not needed, or not tested; the scenario has to say which.
/// </summary>
public sealed class DeletionTests(ITestOutputHelper output)
{
    // The likeliest to notice first. A hang ends soon.
    private static readonly EmulatorOptions[] Ways =
    [
        Way(SchedulingPolicy.Adversarial, 1), Way(SchedulingPolicy.Converge, 1), Way(SchedulingPolicy.Adversarial, 2), Way(SchedulingPolicy.Adversarial, 3), Way(SchedulingPolicy.Adversarial, 4),
    ];

    public static TheoryData<string> Scenarios => [.. KernelScenario.All.Select(scenario => scenario.Name)];

    private static EmulatorOptions Way(SchedulingPolicy policy, ulong seed) =>
        new() { Policy = policy, Seed = seed, Checks = EmulatorChecks.All & ~EmulatorChecks.Counters, WatchdogInstructions = 2_000_000, StopsAtFinding = true };

    [Theory]
    [MemberData(nameof(Scenarios))]
    public void Every_deletion_is_noticed_or_explained(string name)
    {
        KernelScenario scenario = KernelScenario.Named(name);
        EmulatorObserver Observe(Action<EmulatorOptions> run)
        {
            var observer = new EmulatorObserver();
            run(Ways[1] with { Observer = observer, Checks = EmulatorChecks.Counters });
            return observer;
        }
        SyncInstruction[] syncs = [.. Observe(scenario.Run).SyncInstructions.Where(sync => scenario.Owns(sync.Kernel))];
        (Action<EmulatorOptions> Run, EmulatorObserver Observer)[] parts = [.. scenario.Parts.Select(part => (part, Observe(part)))];
        Action<EmulatorOptions>[] PartsWith(SyncInstruction sync) => [.. from part in parts where part.Observer.WasExecuted(sync) select part.Run];
        Dictionary<Survivor, int> used = scenario.Survivors.ToDictionary(survivor => survivor, _ => 0);
        var explained = new Dictionary<(Survivor, string Kernel), int>();
        var unexplained = new List<string>();
        // Every run has a driver of its own, so the deletions part the cores between them.
        var isNoticed = new bool[syncs.Length];
        Parallel.For(0, syncs.Length, i =>
        {
            Action<EmulatorOptions>[] runs = PartsWith(syncs[i]);
            isNoticed[i] = Ways.Any(way => runs.Any(run => Fails(run, way with { Deleted = syncs[i] })));
        });
        int killed = isNoticed.Count(noticed => noticed);
        foreach ((SyncInstruction sync, bool noticed) in syncs.Zip(isNoticed))
        {
            if (noticed) continue;
            if (PartsWith(sync).Length == 0)
            {
                unexplained.Add($"{sync} is executed by no launch of the scenario");
                continue;
            }
            Survivor? reason = scenario.Survivors.FirstOrDefault(survivor => Explains(survivor, sync));
            if (reason is not null) used[reason]++;
            if (reason is null || (explained[(reason, sync.Kernel)] = explained.GetValueOrDefault((reason, sync.Kernel)) + 1) > reason.Most) unexplained.Add($"{sync} is not missed: {LineOf(sync).Trim()}");
            else output.WriteLine($"not missed: {sync}: {reason.Reason}");
        }
        if (syncs.Length > 0) output.WriteLine($"kill rate of deleted barriers and waits, {name}: {killed} of {syncs.Length}");
        Assert.True(unexplained.Count == 0, string.Join("; ", unexplained));
        Assert.True(used.Values.All(count => count > 0), $"explained, but noticed: {string.Join("; ", used.Where(u => u.Value == 0).Select(u => u.Key))}");
    }

    private static bool Fails(Action<EmulatorOptions> run, EmulatorOptions options)
    {
        try
        {
            run(options);
            return false;
        }
        // Whatever it says, it noticed: a finding, a wrong number, a missing result.
        catch (Exception)
        {
            return true;
        }
    }

    private static bool Explains(Survivor survivor, SyncInstruction sync) =>
        sync.Kernel.Contains(survivor.Kernel, StringComparison.Ordinal) && LineOf(sync).Contains(survivor.Line, StringComparison.Ordinal);

    private static string LineOf(SyncInstruction sync)
    {
        string root = SourceTree.Root;
        string? file = Directory.EnumerateFiles(Path.Combine(root, "kernels"), sync.SourceFile, SearchOption.AllDirectories)
            .Concat(Directory.EnumerateFiles(Sources.Folder, sync.SourceFile)).FirstOrDefault();
        return file is null ? "" : File.ReadLines(file).ElementAtOrDefault(sync.SourceLine - 1) ?? "";
    }
}
