// The comparison of ranks and its error.
using System.Text;

namespace ZEngine;

/// <summary>Ranks differ in what must be equal, or want the same of what there is one; the same error on every rank.</summary>
public sealed class WorldMismatchException : IOException
{
    /// <summary>An error with a table of who differs.</summary>
    public WorldMismatchException(string message) : base(message) { }

    /// <summary>An error with its cause.</summary>
    public WorldMismatchException(string message, Exception inner) : base(message, inner) { }

    /// <summary>An error without a message.</summary>
    public WorldMismatchException() { }
}

/// <summary>Holds the ranks of a world to each other before they work together.</summary>
public static class WorldAgreement
{
    /// <summary>Compares facts that must be the same everywhere, such as build, configuration and data.</summary>
    /// <param name="world">All ranks call.</param>
    /// <param name="facts">Names and values; equally many everywhere.</param>
    /// <exception cref="WorldMismatchException">Some differ: a table of who has what. The same on every rank.</exception>
    public static void RequireSame(Communicator world, params ReadOnlySpan<(string Name, string Value)> facts)
    {
        ArgumentNullException.ThrowIfNull(world);
        var own = new StringBuilder();
        foreach ((string name, string value) in facts) own.Append(name).Append('\u0001').Append(value).Append('\u0002');
        string[] all = world.GatherText(own.ToString());
        var table = new StringBuilder();
        foreach (string name in all.SelectMany(text => Facts(text).Select(fact => fact.Name)).Distinct())
        {
            (string Value, int Rank)[] values = [.. all.Select((text, rank) => (Facts(text).FirstOrDefault(fact => fact.Name == name).Value ?? "(absent)", rank))];
            if (values.All(value => value.Value == values[0].Value)) continue;
            foreach (var group in values.GroupBy(value => value.Value))
                table.Append($"\n  {name,-16} {group.Key,-40} rank {Layout.Runs(group.Select(value => value.Rank))}");
        }
        if (table.Length > 0) throw new WorldMismatchException($"The ranks do not agree:{table}");
    }

    /// <summary>Does something on every rank; where some cannot, a table says who and why.</summary>
    /// <param name="world">All ranks call.</param>
    /// <param name="what">What those that cannot are said to be or lack, such as <c>have no device</c>.</param>
    /// <param name="action">Is to throw where it cannot.</param>
    /// <exception cref="WorldMismatchException">Some could not. The same on every rank.</exception>
    public static T Together<T>(Communicator world, string what, Func<T> action)
    {
        ArgumentNullException.ThrowIfNull(world);
        ArgumentNullException.ThrowIfNull(action);
        T? result = default;
        string complaint = "";
        try
        {
            result = action();
        }
#pragma warning disable CA1031 // thrown below, on every rank
        catch (Exception e)
#pragma warning restore CA1031
        {
            complaint = e.Message.Length > 0 ? e.Message.ReplaceLineEndings(" ") : e.GetType().Name;
        }
        var failures = world.GatherText(complaint).Index().Where(rank => rank.Item.Length > 0).GroupBy(rank => rank.Item).ToList();
        if (failures.Count == 0) return result!;
        (result as IDisposable)?.Dispose();
        throw new WorldMismatchException($"Some ranks {what}:{string.Concat(failures.Select(group => $"\n  rank {Layout.Runs(group.Select(rank => rank.Index)),-8} {group.Key}"))}");
    }

    /// <summary>Refuses a device that two ranks want.</summary>
    /// <param name="world">All ranks call.</param>
    /// <param name="device">Names the device among all machines, such as a host and a bus address.</param>
    /// <exception cref="WorldMismatchException">Some are the same: a table of who wants what. The same on every rank.</exception>
    public static void RequireDistinct(Communicator world, string device)
    {
        ArgumentNullException.ThrowIfNull(world);
        var doubles = world.GatherText(device).Index().GroupBy(item => item.Item).Where(group => group.Count() > 1).ToList();
        if (doubles.Count > 0)
            throw new WorldMismatchException($"Two ranks cannot have one device:{string.Concat(doubles.Select(group => $"\n  {group.Key,-40} rank {Layout.Runs(group.Select(item => item.Index))}"))}");
    }

    private static IEnumerable<(string Name, string Value)> Facts(string text) =>
        from fact in text.Split('\u0002', StringSplitOptions.RemoveEmptyEntries) let parts = fact.Split('\u0001') select (parts[0], parts[1]);
}
