using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text.Json;

namespace ZEngine.Bench;

/// <summary>The words behind <c>table</c>.</summary>
internal sealed record TableOptions(string Filter, int Threads, int Rounds, bool HasCpuClock, string? Json)
{
    public static bool TryParse(ReadOnlySpan<string> words, [NotNullWhen(true)] out TableOptions? options)
    {
        options = null;
        (string filter, int threads, int rounds, bool hasCpuClock, string? json) = ("", CpuDevice.Threads, 7, false, null);
        for (int i = 0; i < words.Length; i++)
        {
            bool hasValue = i + 1 < words.Length;
            if (words[i] == "--json" && hasValue) json = words[++i];
            else if (words[i] == "--threads" && hasValue && int.TryParse(words[i + 1], CultureInfo.InvariantCulture, out threads) && threads > 0) i++;
            else if (words[i] == "--rounds" && hasValue && int.TryParse(words[i + 1], CultureInfo.InvariantCulture, out rounds) && rounds > 0) i++;
            else if (words[i] == "--cpu-clock" && OperatingSystem.IsLinux()) (hasCpuClock, threads) = (true, 1);
            else if (filter.Length == 0 && !words[i].StartsWith('-')) filter = words[i];
            else return false;
        }
        options = new TableOptions(filter, threads, rounds, hasCpuClock, json);
        return true;
    }
}

/// <summary>What one row measured.</summary>
internal sealed record TableResult(
    string Op, string Pass, string Shape, string DType, string Device, int Threads, double MedianMs, double BestMs, double SpreadMs,
    double GFlopsPerSecond, double GBytesPerSecond, double ShareOfPeak, double ShareOfMemory, double? OpenBlasMs, double? RatioToOpenBlas);

internal static class Table
{
    private const double SampleMs = 3;                         // calls per sample are chosen so that it takes about so long
    private const int SamplesPerRound = 8;

    // OpenBLAS' idle threads keep spinning for a while after a call and would take a core from what runs next.
    private static readonly TimeSpan s_settle = TimeSpan.FromMilliseconds(60);

    public static int Run(TableOptions options)
    {
        using var machine = new Machine();
        Clock.CountsCpuTime = options.HasCpuClock;
        if (options.HasCpuClock) CpuDevice.Threads = 1;
        Console.WriteLine($"Machine:  {Machine.Describe()}");
        Console.WriteLine($"OpenBLAS: {OpenBlas.Description}");
        Console.WriteLine($"Date:     {DateTime.UtcNow:yyyy-MM-dd}, threads {options.Threads}, rounds {options.Rounds}{(options.HasCpuClock ? ", CPU time of one thread" : "")}");
        Console.WriteLine();
        var measured = new List<(TableRow Row, int Threads, double[] Ms, double[] PeerMs)>();
        foreach (Type bench in Benches(options.Filter))
        foreach (TableRow row in (IEnumerable<TableRow>)bench.GetMethod(nameof(IOpBench.Rows))!.Invoke(null, null)!)
        {
            int threads = row.Threads == 0 ? options.Threads : row.Threads;
            CpuDevice.Threads = threads;
            OpenBlas.Threads = threads;
            (double[] ms, double[] peer) = Measure(row, options.Rounds, () => machine.Probe(threads));
            measured.Add((row, threads, ms, peer));
            Console.Error.Write('.');
        }
        Console.Error.WriteLine();
        if (measured.Count == 0)
        {
            Console.Error.WriteLine($"No bench has '{options.Filter}' in its name.");
            return 2;
        }
        List<TableResult> results = measured.ConvertAll(m => Result(m.Row, m.Threads, m.Ms, m.PeerMs, machine.Limits(m.Threads)));
        foreach (int threads in results.Select(result => result.Threads).Distinct().Order())
            Console.WriteLine($"Limits on {threads} thread(s): {machine.Limits(threads).Flops / 1e9:F0} GFLOP/s of multiply-adds on registers, {machine.Limits(threads).Bytes / 1e9:F1} GB/s of a plain sum");
        Console.WriteLine();
        Print(results);
        if (options.Json is not null) File.WriteAllText(options.Json, JsonSerializer.Serialize(new { machine = Machine.Describe(), openBlas = OpenBlas.Description, date = DateTime.UtcNow, results }, s_json));
        return 0;
    }

    private static readonly JsonSerializerOptions s_json = new() { WriteIndented = true, PropertyNamingPolicy = JsonNamingPolicy.CamelCase };

    private static IEnumerable<Type> Benches(string filter) => typeof(Table).Assembly.GetTypes()
        .Where(type => type.IsAssignableTo(typeof(IOpBench)) && type.IsClass && type.Name.Contains(filter, StringComparison.OrdinalIgnoreCase))
        .OrderBy(type => type.Name, StringComparer.Ordinal);

    /// <summary>Milliseconds of one call of the row and of its peer, in turns.</summary>
    private static (double[] Ms, double[] PeerMs) Measure(TableRow row, int rounds, Action probe)
    {
        int calls = WarmUp(row.Run), peerCalls = row.Peer is null ? 0 : WarmUp(row.Peer);
        var (ms, peer) = (new List<double>(), new List<double>());
        for (int round = 0; round < rounds; round++)
        {
            if (row.Peer is not null) Thread.Sleep(s_settle);
            probe();
            Sample(row.Run, calls, ms);
            if (row.Peer is not null) Sample(row.Peer, peerCalls, peer);
        }
        ms.Sort();
        peer.Sort();
        return ([.. ms], [.. peer]);
    }

    private static void Sample(Action run, int calls, List<double> ms)
    {
        run();
        for (int sample = 0; sample < SamplesPerRound; sample++)
        {
            double start = Clock.Seconds;
            for (int i = 0; i < calls; i++) run();
            ms.Add(1e3 * (Clock.Seconds - start) / calls);
        }
    }

    /// <summary>Runs until the JIT has settled; returns the calls that make one sample.</summary>
    private static int WarmUp(Action run)
    {
        double start = Clock.Seconds;
        int calls = 0;
        for (; calls < 10 || calls < 2000 && Clock.Seconds - start < 0.25; calls++) run();
        double each = 1e3 * (Clock.Seconds - start) / calls;
        return (int)Math.Clamp(SampleMs / each, 1, 100_000);
    }

    private static TableResult Result(TableRow row, int threads, double[] ms, double[] peer, (double Flops, double Bytes) limits)
    {
        // Rates and ratios are those of the best sample: other work on the machine only ever adds time.
        double best = ms[0], seconds = best / 1e3;
        return new TableResult(
            row.Op, row.Pass, row.Shape, row.DType.ToString(), "cpu", threads, ms[ms.Length / 2], best, ms[ms.Length * 3 / 4] - ms[ms.Length / 4],
            row.Flops / seconds / 1e9, row.Bytes / seconds / 1e9, row.Flops / seconds / limits.Flops, row.Bytes / seconds / limits.Bytes,
            peer.Length == 0 ? null : peer[0], peer.Length == 0 ? null : peer[0] / best);
    }

    private static void Print(List<TableResult> results)
    {
        string[] head = ["op", "pass", "shape", "dtype", "threads", "median ms", "best ms", "GFLOP/s", "of peak", "GB/s", "of memory", "OpenBLAS ms", "ratio"];
        var lines = new List<string[]> { head };
        foreach (TableResult r in results)
            lines.Add([
                r.Op, r.Pass, r.Shape, r.DType, Text(r.Threads, "F0"), Text(r.MedianMs, "G4"), Text(r.BestMs, "G4"),
                r.GFlopsPerSecond == 0 ? "" : Text(r.GFlopsPerSecond, "F1"), r.GFlopsPerSecond == 0 ? "" : Text(r.ShareOfPeak, "P0"),
                Text(r.GBytesPerSecond, "F1"), Text(r.ShareOfMemory, "P0"), Text(r.OpenBlasMs, "G4"), Text(r.RatioToOpenBlas, "F2")]);
        int[] widths = [.. head.Select((_, column) => lines.Max(line => line[column].Length))];
        lines.Insert(1, [.. widths.Select(width => new string('-', width))]);
        foreach (string[] line in lines)
            Console.WriteLine("| " + string.Join(" | ", line.Select((cell, column) => column < 4 ? cell.PadRight(widths[column]) : cell.PadLeft(widths[column]))) + " |");
    }

    private static string Text(double? value, string format) => value?.ToString(format, CultureInfo.InvariantCulture) ?? "";
}
