using System.Diagnostics;
using ZEngine.Models;

namespace ZEngine.Bench;

/// <summary>Decoding of single tokens as a share of a plain threaded sum over as many bytes as a token streams, with Float32 and BFloat16 weights, on one thread and on all.</summary>
internal static class DecodeSpeed
{
    private const int Tokens = 20;

    public static int Run(string filter, int rounds)
    {
        int all = CpuDevice.Threads;
        Console.WriteLine($"{all} threads, {CpuDevice.Simd}, .NET {Environment.Version}; medians of {rounds} rounds, best time");
        Console.WriteLine("| model | weights | MB a token | threads | tok/s | share of sum | sum GB/s |");
        Console.WriteLine("|---|---|--:|--:|--:|--:|--:|");
        foreach ((string name, Func<LanguageModel> create) in ModelSpeed.Models().Where(model => model.Name.Contains(filter, StringComparison.OrdinalIgnoreCase)))
        foreach (DType dtype in new[] { DType.Float32, DType.BFloat16 })
        {
            using LanguageModel model = create();
            model.Initialize(Device.Cpu, 1, dtype);
            foreach (int threads in all == 1 ? [1] : new[] { 1, all }) Console.WriteLine(Row(name, model, dtype, threads, rounds));
        }
        CpuDevice.Threads = all;
        return 0;
    }

    private static string Row(string name, LanguageModel model, DType dtype, int threads, int rounds)
    {
        CpuDevice.Threads = threads;
        WarmUp(model);
        var stream = new WeightStream(model);
        (var shares, var rates) = (new List<double>(), new List<double>());
        double best = double.MaxValue;
        for (int round = 0; round < rounds; round++)
        {
            (double token, double sum) = Measure(model);
            best = Math.Min(best, token);
            shares.Add(sum / token);
            rates.Add(stream.Bytes / sum / 1e9);
        }
        return FormattableString.Invariant($"| {name} | {dtype} | {stream.Bytes / 1e6:F1} | {threads} | {1 / best:F0} | {Median(shares):F2} | {Median(rates):F1} |");
    }

    /// <summary>
    /// Decodes until the runtime has compiled the methods of a token with optimisation: it counts their calls, waits until no new method has come up
    /// for a tenth of a second, and does so twice, because the first optimised version still takes a profile. Before that a call costs five times as much.
    /// </summary>
    public static void WarmUp(LanguageModel model)
    {
        for (int tier = 0; tier < 3; tier++)
        {
            for (int i = 0; i < 3; i++) Measure(model);
            Thread.Sleep(250);
        }
    }

    /// <summary>Seconds for a token after a short prompt and for a sum over the bytes it streams, in turns: either finds in the caches what the other left, and slow times of the memory fall on both.</summary>
    public static (double Token, double Sum) Measure(LanguageModel model)
    {
        var stream = new WeightStream(model);
        int[] ids = [.. Enumerable.Range(0, 17 + Tokens).Select(i => i * 31 % model.VocabularySize)];
        using Session session = model.NewSession(maxLength: 64);
        session.Append(ids.AsSpan(0, 16));
        session.Append(ids.AsSpan(16, 1));
        (long token, long sum) = (0, 0);
        for (int i = 0; i < Tokens; i++)
        {
            long start = Stopwatch.GetTimestamp();
            stream.Sum();
            long between = Stopwatch.GetTimestamp();
            session.Append(ids.AsSpan(17 + i, 1));
            sum += between - start;
            token += Stopwatch.GetTimestamp() - between;
        }
        return ((double)token / Stopwatch.Frequency / Tokens, (double)sum / Stopwatch.Frequency / Tokens);
    }

    public static double Median(List<double> values)
    {
        values.Sort();
        return (values[values.Count / 2] + values[(values.Count - 1) / 2]) / 2;
    }
}
