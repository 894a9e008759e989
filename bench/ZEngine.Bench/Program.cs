using BenchmarkDotNet.Columns;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Exporters;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Loggers;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.Emit;

namespace ZEngine.Bench;

internal static class Program
{
    private const string Usage = """
        ZEngine.Bench ops [filter]                  BenchmarkDotNet over the classes whose name contains the filter
        ZEngine.Bench emulator [filter]             the emulator's throughput on kernels of its own
        ZEngine.Bench device cpu|emulator|cuda [filter] [--dtype f32|bf16|f16] [--torch SCRIPT] [--json FILE]
                                                    every op on one device: time and share of its limits, beside PyTorch; on the emulator, counters
        ZEngine.Bench counters [filter]             what kernels do against the least, counted on the emulator: attention, decode, and layers with an estimate of their time
        ZEngine.Bench peers WHAT                    this side of peers.sh; - for the table of the lines on the standard input
        ZEngine.Bench start [rounds]                from the start of zengine generate to its first character
        ZEngine.Bench models [filter] [rounds]      whole models: training step, prefill and decode as shares of what this machine can do
        ZEngine.Bench decode [filter] [rounds]      decoding on one thread and on all, as a share of a sum over the bytes that a token streams
        ZEngine.Bench [table] [filter] [--threads N] [--rounds N] [--cpu-clock] [--json FILE]
                                                    one line per op and shape: time, rate, share of what this machine can do;
                                                    --cpu-clock counts the CPU time of one thread, for machines with other work (Linux)
        """;

    private static int Main(string[] arguments)
    {
        switch (arguments)
        {
            case ["ops"]: return RunOps("");
            case ["ops", string filter]: return RunOps(filter);
            case ["emulator", .. string[] rest]:
                EmulatorBench.Run(rest.Length > 0 ? rest[0] : null);
                return 0;
            case ["device", .. string[] rest] when DeviceBenchOptions.TryParse(rest, out DeviceBenchOptions? options): return DeviceBench.Run(options);
            case ["counters", .. string[] rest]:
                DecodeCounters.Run(rest.Length > 0 ? rest[0] : null);
                AttentionCounts.Run(rest.Length > 0 ? rest[0] : null);
                LayerTable.Run(rest.Length > 0 ? rest[0] : null);
                return 0;
            case ["peers", "-"]: return PeerTable.Run(Console.In);
            case ["peers", string what]: return PeerSpeed.Run(what);
            case ["start"]: return StartTime.Run(5);
            case ["start", string rounds] when int.TryParse(rounds, out int count) && count > 0: return StartTime.Run(count);
            case ["models"]: return ModelSpeed.Run("", 5);
            case ["models", string filter]: return ModelSpeed.Run(filter, 5);
            case ["models", string filter, string rounds] when int.TryParse(rounds, out int count) && count > 0: return ModelSpeed.Run(filter, count);
            case ["decode"]: return DecodeSpeed.Run("", 5);
            case ["decode", string filter]: return DecodeSpeed.Run(filter, 5);
            case ["decode", string filter, string rounds] when int.TryParse(rounds, out int count) && count > 0: return DecodeSpeed.Run(filter, count);
            case ["table", .. string[] rest] when TableOptions.TryParse(rest, out TableOptions? options): return Table.Run(options);
            case [] or [[not '-', ..], ..] when TableOptions.TryParse(arguments, out TableOptions? options): return Table.Run(options);
            default:
                Console.Error.WriteLine(Usage);
                return 2;
        }
    }

    private static int RunOps(string filter)
    {
        // In-process: BenchmarkDotNet 0.14 cannot generate and build a project for .NET 10.
        IConfig config = ManualConfig.CreateEmpty()
            .AddColumnProvider(DefaultColumnProviders.Instance)
            .AddLogger(ConsoleLogger.Default)
            .AddExporter(MarkdownExporter.GitHub)
            .AddJob(Job.ShortRun.WithToolchain(InProcessEmitToolchain.Instance));
        Type[] benches = [.. typeof(Program).Assembly.GetTypes()
            .Where(type => type.Name.EndsWith("Bench", StringComparison.Ordinal) && type is { IsPublic: true, IsAbstract: false })
            .Where(type => type.Name.Contains(filter, StringComparison.OrdinalIgnoreCase))
            .OrderBy(type => type.Name, StringComparer.Ordinal)];
        if (benches.Length == 0)
        {
            Console.Error.WriteLine($"No bench has '{filter}' in its name.");
            return 2;
        }
        return BenchmarkRunner.Run(benches, config).Any(summary => summary.HasCriticalValidationErrors || summary.Reports.Any(report => !report.Success)) ? 1 : 0;
    }
}
