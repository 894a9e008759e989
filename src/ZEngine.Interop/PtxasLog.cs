using System.Globalization;
using System.Text.RegularExpressions;

namespace ZEngine.Interop;

/// <summary>Reads what <c>ptxas -v</c> prints into NVRTC's log.</summary>
internal static partial class PtxasLog
{
    public static Dictionary<string, KernelResources> Parse(string log)
    {
        var found = new Dictionary<string, KernelResources>();
        string? kernel = null, properties = null;
        foreach (string line in log.Split('\n'))
        {
            if (EntryPattern().Match(line) is { Success: true } entry)
                found[kernel = entry.Groups[1].Value] = default;
            else if (PropertiesPattern().Match(line) is { Success: true } function)
                properties = function.Groups[1].Value;
            else if (StackPattern().Match(line) is { Success: true } stack && properties is not null && found.TryGetValue(properties, out KernelResources known))
                found[properties] = known with { StackBytes = Number(stack, 1), SpillStoreBytes = Number(stack, 2), SpillLoadBytes = Number(stack, 3) };
            else if (UsedPattern().Match(line) is { Success: true } used && kernel is not null)
                found[kernel] = found[kernel] with
                {
                    Registers = Number(used, 1),
                    SharedBytes = Optional(SharedPattern().Match(line)),
                    Barriers = Optional(BarrierPattern().Match(line)),
                };
        }
        return found;
    }

    private static int Number(Match match, int group) => int.Parse(match.Groups[group].Value, CultureInfo.InvariantCulture);

    private static int Optional(Match match) => match.Success ? Number(match, 1) : 0;

    [GeneratedRegex(@"Compiling entry function '([^']+)'")]
    private static partial Regex EntryPattern();

    [GeneratedRegex(@"Function properties for (\S+)")]
    private static partial Regex PropertiesPattern();

    [GeneratedRegex(@"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")]
    private static partial Regex StackPattern();

    [GeneratedRegex(@"Used (\d+) registers")]
    private static partial Regex UsedPattern();

    [GeneratedRegex(@"(\d+) bytes smem")]
    private static partial Regex SharedPattern();

    [GeneratedRegex(@"used (\d+) barriers")]
    private static partial Regex BarrierPattern();
}
