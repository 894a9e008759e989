using System.CommandLine;
using System.Globalization;
using ZEngine.Distributed;

namespace ZEngine.Cli;

/// <summary><c>zengine bench comm</c></summary>
internal static class BenchComm
{
    public static Command Command(Terminal terminal)
    {
        var least = new Option<long>("--from") { Description = "Smallest array.", DefaultValueFactory = _ => 1024, HelpName = "BYTES" };
        var most = new Option<long>("--to") { Description = "Largest array.", DefaultValueFactory = _ => 16 << 20, HelpName = "BYTES" };
        var seconds = new Option<double>("--seconds") { Description = "Time for each line.", DefaultValueFactory = _ => 0.3, HelpName = "SECONDS" };
        var dtype = new Option<string>("--dtype") { Description = "float32 or bfloat16.", DefaultValueFactory = _ => "float32", HelpName = "TYPE" };
        dtype.AcceptOnlyFromAmong("float32", "bfloat16");
        var json = new Option<string?>("--json") { Description = "A file for the lines as JSON.", HelpName = "FILE" };
        var command = new Command("comm", "Measures collectives between the ranks of this job: zengine launch -np 4 bench comm.") { least, most, seconds, dtype, json };
        command.SetAction(parse =>
        {
            (long from, long to, double time) = (parse.GetValue(least), parse.GetValue(most), parse.GetValue(seconds));
            if (from < 1 || to < from || !(time > 0)) throw new UserError(ExitCode.Usage, "--from and --to must be sizes in order, and --seconds more than 0.");
            DType type = parse.GetValue(dtype) == "bfloat16" ? DType.BFloat16 : DType.Float32;
            return Ranks.Run(terminal, ranks => Run(ranks, ranks.IsFirst ? terminal.Output : TextWriter.Null, type, from, to, time, ranks.IsFirst ? parse.GetValue(json) : null));
        });
        return new Command("bench", "Measurements on this machine.") { command };
    }

    private static int Run(Ranks ranks, TextWriter output, DType dtype, long from, long to, double seconds, string? json)
    {
        Communicator world = ranks.World;
        using StreamWriter? file = json is null ? null : new StreamWriter(json);
        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"# transport={world.Name} ranks={world.Size} host={Environment.MachineName} cores={Environment.ProcessorCount} date={DateTime.UtcNow:yyyy-MM-dd HH:mm}"));
        output.WriteLine("# op                bytes  iters   t_min us   t_p50 us   t_p99 us  algbw GB/s  busbw GB/s  wrong");
        var bench = new CommunicationBench(world, seconds: seconds);
        long wrong = 0;
        foreach (CollectiveKind op in CommunicationBench.Ops)
        {
            var rows = new List<CommunicationRow>();
            for (long bytes = from; bytes <= to; bytes *= 4) rows.Add(bench.Measure(op, dtype, bytes));
            foreach (CommunicationRow row in rows)
            {
                wrong += row.Wrong;
                output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{row.Op,-13} {row.Bytes,10} {row.Iterations,6} {row.Min,10:F1} {row.P50,10:F1} {row.P99,10:F1} {row.AlgorithmBandwidth,11:F2} {row.BusBandwidth,11:F2} {row.Wrong,6}"));
                file?.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{{\"op\":\"{row.Op}\",\"dtype\":\"{row.DType}\",\"ranks\":{world.Size},\"bytes\":{row.Bytes},\"iterations\":{row.Iterations},\"min_us\":{row.Min:F2},\"p50_us\":{row.P50:F2},\"p99_us\":{row.P99:F2},\"algbw_gbs\":{row.AlgorithmBandwidth:F4},\"busbw_gbs\":{row.BusBandwidth:F4},\"wrong\":{row.Wrong}}}"));
            }
            if (rows.Count < 2 || world.Size == 1) continue;
            CommunicationFit fit = CommunicationFit.Of(rows);
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"# {op}: latency {fit.Latency:F1} us, bandwidth {fit.Bandwidth:F2} GB/s{(op == CollectiveKind.AllReduce ? $"; buckets of {Math.Max(1 << 16, fit.BytesForFourFifths(rows[0].Factor))} bytes reach four fifths of it (train --bucket-bytes)" : "")}"));
        }
        if (wrong > 0) throw new InvalidDataException($"{wrong} elements are not what they have to be: the transport {world.Name} is broken.");
        return ExitCode.Success;
    }
}
