using System.Diagnostics;
using ZEngine.Models;
using ZEngine.Training;

namespace ZEngine.Bench;

/// <summary>Whole models against the machine's own limits, in one run: training step and prefill as shares of the 1024³ product's rate, decoding as a share of a plain sum over the weights' bytes.</summary>
internal static class ModelSpeed
{
    private const int Vocabulary = 8192, Batch = 4, Length = 512, Prompt = 4096;

    public static int Run(string filter, int rounds)
    {
        Console.WriteLine($"{CpuDevice.Threads} threads, {CpuDevice.Simd}, .NET {Environment.Version}; best of {rounds} rounds, taken in turns");
        Console.WriteLine("| model | parameters | step ms | step GFLOP/s | share of MatMul | prefill tok/s | share of MatMul | decode tok/s | share of sum | decode bf16 tok/s | share of sum |");
        Console.WriteLine("|---|---|---|---|---|---|---|---|---|---|---|");
        foreach ((string name, Func<LanguageModel> create) in Models())
            if (name.Contains(filter, StringComparison.OrdinalIgnoreCase)) Console.WriteLine(Row(name, create, rounds));
        return 0;
    }

    /// <summary>d 512, 8 layers; the hybrid has two uses of one shared block.</summary>
    public static IEnumerable<(string Name, Func<LanguageModel> Create)> Models() =>
    [
        ("zamba2", () => new Zamba2(new Zamba2Config
        {
            VocabularySize = Vocabulary, HiddenSize = 512, Layers = 8, HybridLayers = [2, 6], IntermediateSize = 2048, MambaHeads = 16, StateSize = 64,
            AttentionHeads = 16, KeyValueHeads = 16, AdapterRank = 64,
        })),
        ("mamba2", () => new Mamba2(new Mamba2Config { VocabularySize = Vocabulary, HiddenSize = 512, Layers = 8, Heads = 16, StateSize = 64, IsTied = true })),
        ("mamba", () => new Mamba(new MambaConfig { VocabularySize = Vocabulary, HiddenSize = 512, Layers = 8, InnerSize = 1024, TimeStepRank = 32 })),
        ("llama", () => new Llama(new LlamaConfig { VocabularySize = Vocabulary, HiddenSize = 512, IntermediateSize = 1536, Layers = 8, Heads = 8, KeyValueHeads = 4, HeadDimension = 64, IsTied = true })),
    ];

    private static string Row(string name, Func<LanguageModel> create, int rounds)
    {
        using LanguageModel model = create(), narrow = create();
        model.Initialize(Device.Cpu, 1);
        narrow.Initialize(Device.Cpu, 1, DType.BFloat16);
        using var adam = new AdamW(model.Parameters);
        var random = new RandomStream(1);
        int[] ids = [.. Enumerable.Range(0, Math.Max(Prompt, Batch * Length)).Select(i => (int)random.Below(i, Vocabulary))];
        (double step, double product, double prefill, double decode, double decodeNarrow) = (double.MaxValue, double.MaxValue, double.MaxValue, double.MaxValue, double.MaxValue);
        (var shares, var narrowShares) = (new List<double>(), new List<double>());
        DecodeSpeed.WarmUp(model);
        for (int round = 0; round < rounds; round++)
        {
            product = Math.Min(product, Time(5, Product));
            step = Math.Min(step, Time(1, () => Step(model, adam, ids)));
            prefill = Math.Min(prefill, Time(1, () => Prefill(model, ids)));
            decode = Math.Min(decode, Decode(model, shares));
            decodeNarrow = Math.Min(decodeNarrow, Decode(narrow, narrowShares));
        }
        double rate = 2.0 * 1024 * 1024 * 1024 / product;
        double forward = model.Parts.Sum(part => part.FlopsPerToken);
        double trained = 3 * (Batch * Length * forward + Batch * AttentionFlops(name, Length)), read = Prompt * (forward - 2.0 * Vocabulary * 512) + AttentionFlops(name, Prompt);
        return FormattableString.Invariant(
            $"| {name} | {model.ParameterCount / 1e6:F1}M | {step * 1e3:F0} | {trained / step / 1e9:F0} | {trained / step / rate:F2} | {Prompt / prefill:F0} | {read / prefill / rate:F2} | {1 / decode:F0} | {DecodeSpeed.Median(shares):F2} | {1 / decodeNarrow:F0} | {DecodeSpeed.Median(narrowShares):F2} |");
    }

    /// <summary>Products of queries, keys and values under a causal mask, forward, of one sequence.</summary>
    private static double AttentionFlops(string name, double length) => name switch
    {
        "zamba2" => 2 * 2 * 2 * length * length / 2 * 1024,
        "llama" => 8 * 2 * 2 * length * length / 2 * 512,
        _ => 0,
    };

    private static void Step(LanguageModel model, AdamW adam, int[] ids)
    {
        using Tape tape = Tape.Begin();
        Tensor tokens = Tensor.From<int>(ids.AsSpan(0, Batch * Length), [Batch, Length], Device.Cpu);
        tape.Backward(Ops.CrossEntropy(model.Forward(tokens), tokens));
        adam.Step(1e-4f, Gradients.Norm(model.Parameters), 1);
    }

    private static void Prefill(LanguageModel model, int[] ids)
    {
        using Session session = model.NewSession(maxLength: Prompt);
        session.Append(ids.AsSpan(0, Prompt));
    }

    private static double Decode(LanguageModel model, List<double> shares)
    {
        (double token, double sum) = DecodeSpeed.Measure(model);
        shares.Add(sum / token);
        return token;
    }

    private static void Product() => Ops.MatMul(s_a, s_b).Dispose();

    private static readonly Tensor s_a = Ops.RandomNormal([1024, 1024], Device.Cpu, new RandomStream(1)), s_b = Ops.RandomNormal([1024, 1024], Device.Cpu, new RandomStream(2));

    /// <summary>The shortest of some runs, in seconds.</summary>
    private static double Time(int runs, Action action)
    {
        double best = double.MaxValue;
        for (int i = 0; i < runs; i++)
        {
            var clock = Stopwatch.StartNew();
            action();
            best = Math.Min(best, clock.Elapsed.TotalSeconds);
        }
        return best;
    }
}
