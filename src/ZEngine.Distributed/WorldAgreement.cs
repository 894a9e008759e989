// The comparison of ranks and its error.
using System.Text;

namespace ZEngine.Distributed;

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
                table.Append($"\n  {name,-16} {group.Key,-40} rank {Ranks(group.Select(value => value.Rank))}");
        }
        if (table.Length > 0) throw new WorldMismatchException($"The ranks do not agree:{table}");
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
            throw new WorldMismatchException($"Two ranks cannot have one device:{string.Concat(doubles.Select(group => $"\n  {group.Key,-40} rank {Ranks(group.Select(item => item.Index))}"))}");
    }

    private static IEnumerable<(string Name, string Value)> Facts(string text) =>
        from fact in text.Split('\u0002', StringSplitOptions.RemoveEmptyEntries) let parts = fact.Split('\u0001') select (parts[0], parts[1]);

    /// <summary>For example <c>0-2, 5</c>.</summary>
    private static string Ranks(IEnumerable<int> ranks)
    {
        var runs = new List<(int First, int Last)>();
        foreach (int rank in ranks)
        {
            if (runs.Count > 0 && runs[^1].Last == rank - 1) runs[^1] = (runs[^1].First, rank);
            else runs.Add((rank, rank));
        }
        return string.Join(", ", runs.Select(run => run.First == run.Last ? $"{run.First}" : $"{run.First}-{run.Last}"));
    }
}
