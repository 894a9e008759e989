using System.Globalization;

namespace ZEngine.Bench;

/// <summary>Puts the lines that <c>peers.sh</c> has gathered side by side: who, shape, what, value; medians over the turns.</summary>
internal static class PeerTable
{
    private const string Own = "zengine";

    public static int Run(TextReader lines)
    {
        var values = new List<(string Who, string Shape, string What, double Value)>();
        while (lines.ReadLine() is { } line)
        {
            if (line.Split('\t') is not [string who, string shape, string what, string text] || !double.TryParse(text, CultureInfo.InvariantCulture, out double value))
            {
                Console.Error.WriteLine($"peers: not a line of who, shape, what and value: {line}");
                return 2;
            }
            values.Add((who, shape, what, value));
        }
        Console.WriteLine("| shape | what | ZEngine | peer | ratio |");
        Console.WriteLine("|---|---|--:|--:|--:|");
        foreach (var row in values.GroupBy(value => (value.Shape, value.What)))
        {
            double own = Median(row.Where(value => value.Who == Own));
            foreach (var peer in row.Where(value => value.Who != Own).GroupBy(value => value.Who))
            {
                double other = Median(peer), ratio = row.Key.What.EndsWith(" s", StringComparison.Ordinal) ? other / own : own / other;
                Console.WriteLine(FormattableString.Invariant($"| {row.Key.Shape} | {row.Key.What} | {own:G4} | {peer.Key} {other:G4} | {ratio:F2} |"));
            }
        }
        return 0;
    }

    private static double Median(IEnumerable<(string Who, string Shape, string What, double Value)> values)
    {
        double[] sorted = [.. values.Select(value => value.Value).Order()];
        return sorted.Length == 0 ? double.NaN : (sorted[sorted.Length / 2] + sorted[(sorted.Length - 1) / 2]) / 2;
    }
}
