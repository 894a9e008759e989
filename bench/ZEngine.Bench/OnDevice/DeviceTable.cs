using System.Globalization;

namespace ZEngine.Bench;

/// <summary>Prints results as a table, with the columns that have anything.</summary>
internal static class DeviceTable
{
    private static readonly (string Head, Func<DeviceResult, string> Cell)[] Columns =
    [
        ("op", r => r.Op), ("pass", r => r.Pass), ("sizes", r => r.Shape), ("dtype", r => r.DType),
        ("ms", r => Text(r.Ms, "G4")), ("GB/s", r => Text(r.GBytesPerSecond, "F1")), ("TFLOP/s", r => Text(r.TFlopsPerSecond, "F2")), ("of peak", r => Text(r.ShareOfPeak, "F2")),
        ("PyTorch ms", r => Text(r.TorchMs, "G4")), ("by", r => r.TorchWay ?? ""), ("ratio", r => Text(r.RatioToTorch, "F2")),
        ("launches", r => Text(r.Launches, "F0")), ("bytes / minimum", r => Text(r.BytesToMinimum, "F3")), ("sectors filled", r => Text(r.SectorsFilled, "F3")), ("of 16-byte accesses", r => Text(r.WideShare, "F3")),
        ("shared wavefronts / ideal", r => Text(r.SharedWavefronts, "F2")), ("tensor cores / formula", r => Text(r.MatrixFlopsToFormula, "F2")),
    ];

    public static void Print(IReadOnlyList<DeviceResult> results)
    {
        (string Head, Func<DeviceResult, string> Cell)[] columns = [.. Columns.Where(column => results.Any(result => column.Cell(result).Length > 0))];
        int[] widths = [.. columns.Select(column => Math.Max(column.Head.Length, results.Max(result => column.Cell(result).Length)))];
        Line(columns.Select(column => column.Head));
        Line(widths.Select(width => new string('-', width)));
        foreach (DeviceResult result in results) Line(columns.Select(column => column.Cell(result)));

        void Line(IEnumerable<string> cells) => Console.WriteLine("| " + string.Join(" | ", cells.Select((cell, i) => i < 4 ? cell.PadRight(widths[i]) : cell.PadLeft(widths[i]))) + " |");
    }

    private static string Text(double? value, string format) => value?.ToString(format, CultureInfo.InvariantCulture) ?? "";
}
