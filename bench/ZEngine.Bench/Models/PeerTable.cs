using System.Globalization;

namespace ZEngine.Bench;

/// <summary>Puts the lines that <c>peers.sh</c> has gathered side by side: who, shape, what, value; medians over the turns. The ratio is the median of the turns' own: what slows the machine for a while slows both of a turn.</summary>
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
        Console.WriteLine("| shape | what | ZEngine | peer | ratio, of a turn |");
        Console.WriteLine("|---|---|--:|--:|--:|");
        foreach (var row in values.GroupBy(value => (value.Shape, value.What)))
        {
            double[] own = [.. row.Where(value => value.Who == Own).Select(value => value.Value)];
            foreach (var peer in row.Where(value => value.Who != Own).GroupBy(value => value.Who, value => value.Value))
            {
                double[] others = [.. peer];
                if (others.Length != own.Length)
                {
                    Console.Error.WriteLine($"peers: {row.Key.Shape}, {row.Key.What}: {own.Length} turns of {Own} and {others.Length} of {peer.Key}");
                    return 2;
                }
                bool isTime = row.Key.What.EndsWith(" s", StringComparison.Ordinal);
                double[] ratios = [.. own.Zip(others, (a, b) => isTime ? b / a : a / b)];
                Console.WriteLine(FormattableString.Invariant($"| {row.Key.Shape} | {row.Key.What} | {DecodeSpeed.Median([.. own]):G4} | {peer.Key} {DecodeSpeed.Median([.. others]):G4} | {DecodeSpeed.Median([.. ratios]):F2} ({ratios.Min():F2} to {ratios.Max():F2}) |"));
            }
        }
        return 0;
    }
}
