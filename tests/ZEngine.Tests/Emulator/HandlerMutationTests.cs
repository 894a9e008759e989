using ZEngine.Emulator;
using ZEngine.Emulator.Execution;
using ZEngine.Tests.Emulator.Forms;

namespace ZEngine.Tests.Emulator;

/// <summary>
/// The handler of every form that has an oracle is broken in every way that applies: one of its oracles must notice. So the oracles look at
/// every lane, every source, the mask and the offset.
/// </summary>
public sealed class HandlerMutationTests(ITestOutputHelper output)
{
    [Theory]
    [InlineData(nameof(HandlerFault.WrongBit))]
    [InlineData(nameof(HandlerFault.WrongLane))]
    [InlineData(nameof(HandlerFault.SwappedSources))]
    [InlineData(nameof(HandlerFault.SkippedLane))]
    [InlineData(nameof(HandlerFault.IgnoredMask))]
    [InlineData(nameof(HandlerFault.WrongOffset))]
    public void Every_broken_handler_is_noticed(string name)
    {
        HandlerFault fault = Enum.Parse<HandlerFault>(name);
        int broken = 0, noticed = 0, equivalent = 0;
        var survivors = new List<string>();
        IGrouping<string, Oracle>[] forms = [.. OracleTables.ByForm.OrderBy(group => group.Key, StringComparer.Ordinal)];
        var results = new (bool IsBroken, bool IsNoticed)[forms.Length];
        // Every run has a driver of its own, so the forms part the cores between them.
        Parallel.For(0, forms.Length, i =>
        {
            var mutation = new HandlerMutation(forms[i].Key, fault, BitOf(forms[i].Key));
            bool isNoticed = forms[i].Any(oracle => Notices(oracle, mutation));
            results[i] = (mutation.Applied > 0, isNoticed);
        });
        foreach ((IGrouping<string, Oracle> form, (bool isBroken, bool isNoticed)) in forms.Zip(results))
        {
            if (!isBroken) continue;
            broken++;
            if (isNoticed) noticed++;
            else if (IsEquivalent(form.Key, fault)) equivalent++;
            else survivors.Add(form.Key);
        }
        output.WriteLine($"kill rate of handlers broken by {name}: {noticed} of {broken - equivalent}, besides {equivalent} that change nothing PTX promises");
        Assert.True(broken > 100, $"{broken} handlers broken");
        Assert.True(survivors.Count == 0, $"{survivors.Count} of {broken} forms may have {name}: {string.Join(", ", survivors)}");
    }

    private static bool Notices(Oracle oracle, HandlerMutation mutation)
    {
        try
        {
            oracle.Run(new EmulatorOptions { Checks = EmulatorChecks.None, Mutation = mutation, WatchdogInstructions = 100_000 }, true);
            return false;
        }
        // A wrong result, a finding, an address that leads nowhere: all of them notice.
        catch (Exception)
        {
            return true;
        }
    }

    // The lowest bit but for approximations, which may be off by a few.
    private static int BitOf(string form) => form.StartsWith("tanh", StringComparison.Ordinal) ? 15 : form.EndsWith("f64", StringComparison.Ordinal) && form.Contains("approx", StringComparison.Ordinal) ? 40 : form.Contains("approx", StringComparison.Ordinal) || form.Contains(".full", StringComparison.Ordinal) ? 7 : 0;

    /// <summary>Faults that change nothing that the PTX ISA promises.</summary>
    private static bool IsEquivalent(string form, HandlerFault fault)
    {
        string[] parts = form.Split('.');
        return fault switch
        {
            // What may be exchanged.
            HandlerFault.SwappedSources => parts[0] is "add" or "addc" or "mul" or "mad" or "madc" or "fma" or "min" or "max" or "and" or "or" or "xor" or "sad"
                || parts[0] == "dp4a" && parts[1] == parts[2] || parts[0] == "setp" && parts[1] is "eq" or "ne" or "equ" or "neu" or "num" or "nan",
            // Matrix instructions are for the whole warp and look at no mask; sleeping does nothing.
            HandlerFault.SkippedLane => parts[0] is "ldmatrix" or "mma" or "nanosleep",
            // A copy may land before it is waited for; a trap ends the launch whoever takes part.
            HandlerFault.IgnoredMask => parts[0] == "trap" || form is "cp.async.commit_group" or "cp.async.wait_group" or "cp.async.wait_all",
            _ => false,
        };
    }
}
