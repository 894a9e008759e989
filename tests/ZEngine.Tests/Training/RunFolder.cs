using ZEngine.CrashHost;
using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>A run in a folder that goes with the test: <c>Train</c> plays one process.</summary>
internal sealed class RunFolder : IDisposable
{
    public const int Length = 16;

    private readonly TextTokens _tokens = new([.. Enumerable.Range(0, 6000).Select(i => (int)(new RandomStream(11).Bits(i) & (i % 5 == 0 ? 255u : 7u)))], 256);

    public string Path { get; } = Directory.CreateTempSubdirectory("zengine-run-").FullName;

    public string Checkpoints => Trainer.CheckpointFolder(Path);

    public TrainingOptions Options(int steps) => new()
    {
        RunFolder = Path, Steps = steps, Batch = 4, Length = Length, LearningRate = 3e-3f, Warmup = 3, Seed = 5,
        EvaluationInterval = 5, EvaluationBatches = 2, CheckpointInterval = 5, KeepCheckpoints = 3,
    };

    public TokenWindows Windows(DataPart part = DataPart.Train, ulong seed = 5) => new(_tokens, Length, seed, part, new DataSplit(5, 300));

    public static TinyModel NewModel(DType dtype = DType.Float32)
    {
        var model = new TinyModel();
        model.Initialize(Device.Cpu, seed: 7, dtype);
        return model;
    }

    public Trainer NewTrainer(ZEngine.Models.LanguageModel model, TrainingOptions options, SequenceSource? data = null) => new(model, data ?? Windows(), Windows(DataPart.HeldOut), options);

    /// <summary>Trains a fresh model and returns the bytes of its parameters.</summary>
    public (TrainingResult Result, byte[] Weights) Train(TrainingOptions options, int? cancelAfterStep = null, DType dtype = DType.Float32, Action<Trainer>? watch = null)
    {
        using TinyModel model = NewModel(dtype);
        using var cancellation = new CancellationTokenSource();
        Trainer trainer = NewTrainer(model, options);
        watch?.Invoke(trainer);
        if (cancelAfterStep is { } step) trainer.StepTaken += report => { if (report.Step == step) cancellation.Cancel(); };
        TrainingResult result = trainer.Run(cancellation.Token);
        return (result, Weights(model));
    }

    public static byte[] Weights(Module model)
    {
        var stream = new MemoryStream();
        foreach (Parameter parameter in model.Parameters)
        {
            using Tensor wide = parameter.Value.DType == DType.Float32 ? parameter.Value.Detach() : parameter.Value.To(DType.Float32);
            stream.Write(System.Runtime.InteropServices.MemoryMarshal.AsBytes(wide.ToArray<float>().AsSpan()));
        }
        return stream.ToArray();
    }

    /// <summary>The record without what a clock measured.</summary>
    public string[] Metrics() => [.. File.ReadAllLines(Trainer.MetricsPath(Path)).Select(line => line.Split(",\"tokens_per_second\"")[0])];

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
