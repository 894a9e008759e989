using System.Diagnostics;
using System.Globalization;
using ZEngine.Models;
using ZEngine.Training;

namespace ZEngine.Bench;

/// <summary>ZEngine's side of the comparison with llama.cpp and with transformers on PyTorch, on the same shapes: one line per figure, for <c>peers.sh</c> to put beside theirs.</summary>
internal static class PeerSpeed
{
    private const int Vocabulary = 8192, Batch = 4, Length = 512, Rounds = 5;

    public static int Run(string what)
    {
        switch (what)
        {
            case "mamba2-768": return Inference(what, new Mamba2(new Mamba2Config { VocabularySize = Vocabulary, HiddenSize = 768, Layers = 24, Heads = 24, StateSize = 64 }));
            case "llama-768":
                return Inference(what, new Llama(new LlamaConfig { VocabularySize = Vocabulary, HiddenSize = 768, IntermediateSize = 2304, Layers = 24, Heads = 12, KeyValueHeads = 6, HeadDimension = 64 }));
            case "mamba2-512": return Training(what, new Mamba2(new Mamba2Config { VocabularySize = Vocabulary, HiddenSize = 512, Layers = 8, Heads = 16, StateSize = 64, IsTied = true }));
            case "zamba2-512":
                return Training(what, new Zamba2(new Zamba2Config
                {
                    VocabularySize = Vocabulary, HiddenSize = 512, Layers = 8, HybridLayers = [2, 6], IntermediateSize = 2048, MambaHeads = 16, StateSize = 64,
                    AttentionHeads = 16, KeyValueHeads = 16, AdapterRank = 64,
                }));
            default:
                Console.Error.WriteLine("ZEngine.Bench peers mamba2-768|llama-768|mamba2-512|zamba2-512");
                return 2;
        }
    }

    /// <summary>Prefill of 512 tokens and decoding of 32 from an empty context, in tokens per second: what <c>llama-bench</c> measures, a warm-up and the mean of five.</summary>
    private static int Inference(string name, LanguageModel model)
    {
        using (model)
        {
            model.Initialize(Device.Cpu, 1);
            Print(name, "prefill 512 tok/s", Mean(() =>
            {
                using Session session = model.NewSession(maxLength: Length);
                var clock = Stopwatch.StartNew();
                session.Append(Ids(Length));
                return Length / clock.Elapsed.TotalSeconds;
            }));
            Print(name, "decode tok/s", Mean(() =>
            {
                using Session session = model.NewSession(maxLength: 64);
                return Decode(session);
            }));
        }
        return 0;
    }

    /// <summary>A training step of batch 4 and 512 tokens, in seconds, and decoding, in tokens per second; as above.</summary>
    private static int Training(string name, LanguageModel model)
    {
        using (model)
        {
            model.Initialize(Device.Cpu, 1);
            using var adam = new AdamW(model.Parameters);
            Print(name, "training step s", Mean(() => Step(model, adam)));
            Print(name, "decode tok/s", Mean(() =>
            {
                using Session session = model.NewSession(maxLength: 64);
                session.Append(Ids(8));
                return Decode(session);
            }));
        }
        return 0;
    }

    private static double Step(LanguageModel model, AdamW adam)
    {
        var clock = Stopwatch.StartNew();
        using (Tape tape = Tape.Begin())
        {
            Tensor tokens = Tensor.From<int>(Ids(Batch * Length), [Batch, Length], Device.Cpu);
            tape.Backward(Ops.CrossEntropy(model.Forward(tokens), tokens));
            adam.Step(1e-4f, Gradients.Norm(model.Parameters), 1);
        }
        return clock.Elapsed.TotalSeconds;
    }

    private static double Mean(Func<double> measure)
    {
        measure();
        return Enumerable.Range(0, Rounds).Average(_ => measure());
    }

    private static double Decode(Session session)
    {
        const int Tokens = 32;
        var clock = Stopwatch.StartNew();
        for (int i = 0; i < Tokens; i++) session.Append([i * 7 % Vocabulary]);
        return Tokens / clock.Elapsed.TotalSeconds;
    }

    private static int[] Ids(int count) => [.. Enumerable.Range(0, count).Select(i => i * 31 % Vocabulary)];

    private static void Print(string name, string what, double value) => Console.WriteLine($"{name}\t{what}\t{value.ToString("G4", CultureInfo.InvariantCulture)}");
}
