using System.CommandLine;
using System.Globalization;
using ZEngine.Distributed;

namespace ZEngine.Cli;

/// <summary><c>zengine bench comm</c></summary>
internal static class BenchComm
{
    public static Command Command(Terminal terminal)
    {
        var least = new Option<long>("--from") { Description = "Smallest array.", DefaultValueFactory = _ => 8, HelpName = "BYTES" };
        var most = new Option<long>("--to") { Description = "Largest array.", DefaultValueFactory = _ => 16 << 20, HelpName = "BYTES" };
        var step = new Option<int>("--factor") { Description = "How many times as large the next array is.", DefaultValueFactory = _ => 8, HelpName = "COUNT" };
        var seconds = new Option<double>("--seconds") { Description = "Time for each line.", DefaultValueFactory = _ => 0.1, HelpName = "SECONDS" };
        var dtype = new Option<string>("--dtype") { Description = "float32 or bfloat16.", DefaultValueFactory = _ => "float32", HelpName = "TYPE" };
        dtype.AcceptOnlyFromAmong("float32", "bfloat16");
        var threads = new Option<int>("--in-process") { Description = "Ranks on so many threads of this process, instead of those of a launcher.", HelpName = "COUNT" };
        var json = new Option<string?>("--json") { Description = "A file for the lines as JSON.", HelpName = "FILE" };
        Option<string> device = DeviceChoice.Option();
        var command = new Command("comm", "Measures exchanges between the ranks of this job: zengine launch -np 4 bench comm.") { least, most, step, seconds, dtype, threads, json, device };
        command.SetAction(parse =>
        {
            var sweep = new Sweep(parse.GetValue(least), parse.GetValue(most), parse.GetValue(step), parse.GetValue(seconds), parse.GetValue(dtype) == "bfloat16" ? DType.BFloat16 : DType.Float32);
            if (sweep.From < 1 || sweep.To < sweep.From || sweep.Factor < 2 || !(sweep.Seconds > 0)) throw new UserError(ExitCode.Usage, "--from and --to must be sizes in order, --factor at least 2, and --seconds more than 0.");
            if (parse.GetValue(threads) is not 0 and var count)
            {
                if (count is < 1 or > 64) throw new UserError(ExitCode.Usage, $"--in-process must be from 1 to 64, got {count}.");
                if (parse.GetValue(device) != "cpu") throw new UserError(ExitCode.Usage, "--in-process measures the CPU; leave --device away.");
                InProcessWorld.Run(count, world => Run(world, Device.Cpu, terminal.Output, sweep, parse.GetValue(json)));
                return ExitCode.Success;
            }
            return Ranks.Run(terminal, ranks =>
            {
                Device on = ranks.OpenDevice(parse.GetValue(device)!);
                Run(ranks.World, on, terminal.Output, sweep, parse.GetValue(json));
                return ExitCode.Success;
            });
        });
        return new Command("bench", "Measurements on this machine.") { command };
    }

    private static void Run(Communicator world, Device device, TextWriter output, Sweep sweep, string? json)
    {
        bool isFirst = world.Rank == 0;
        if (!isFirst) output = TextWriter.Null;
        using StreamWriter? file = json is null || !isFirst ? null : new StreamWriter(json);
        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"# transport={world.Name} ranks={world.Size} device={device} dtype={sweep.DType} host={Environment.MachineName} cores={Environment.ProcessorCount} date={DateTime.UtcNow:yyyy-MM-dd HH:mm}"));
        output.WriteLine("# op                bytes  iters   t_min us   t_p50 us   t_p99 us  algbw GB/s  busbw GB/s  wrong");
        var bench = new CommunicationBench(world, device, seconds: sweep.Seconds);
        long wrong = 0;
        foreach (MeasuredExchange op in CommunicationBench.Ops)
        {
            var rows = new List<CommunicationRow>();
            for (long bytes = sweep.From; bytes <= sweep.To && (op != MeasuredExchange.Barrier || rows.Count == 0); bytes *= sweep.Factor)
            {
                CommunicationRow row = bench.Measure(op, sweep.DType, bytes);
                rows.Add(row);
                wrong += row.Wrong;
                output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{row.Op,-13} {row.Bytes,10} {row.Iterations,6} {row.Min,10:F1} {row.P50,10:F1} {row.P99,10:F1} {row.AlgorithmBandwidth,11:F3} {row.BusBandwidth,11:F3} {row.Wrong,6}"));
                file?.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{{\"op\":\"{row.Op}\",\"transport\":\"{world.Name}\",\"dtype\":\"{row.DType}\",\"ranks\":{world.Size},\"bytes\":{row.Bytes},\"iterations\":{row.Iterations},\"min_us\":{row.Min:F2},\"p50_us\":{row.P50:F2},\"p99_us\":{row.P99:F2},\"algbw_gbs\":{row.AlgorithmBandwidth:F4},\"busbw_gbs\":{row.BusBandwidth:F4},\"wrong\":{row.Wrong}}}"));
            }
            if (rows.Count < 2 || world.Size == 1) continue;
            CommunicationFit fit = CommunicationFit.Of(rows);
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"# {op}: latency {fit.Latency:F1} us, bandwidth {fit.Bandwidth:F2} GB/s, half of it at {fit.BytesForShare(0.5, rows[0].Factor)} bytes{(op == MeasuredExchange.AllReduce ? $"; training takes buckets of {CommunicationBench.BucketFor(rows)} bytes from such a line (--bucket-bytes 0)" : "")}"));
        }
        if (wrong > 0) throw new InvalidDataException($"{wrong} elements are not what they have to be: the transport {world.Name} is broken.");
    }

    private readonly record struct Sweep(long From, long To, int Factor, double Seconds, DType DType);
}
