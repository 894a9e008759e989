using ZEngine.Training;

namespace ZEngine.CrashHost;

/// <summary>One small run, the same in the process that is killed and in the one that is not.</summary>
public sealed record CrashRun(string Folder, int Steps, int CheckpointInterval)
{
    public Trainer CreateTrainer(TinyModel model, Communicator? world = null)
    {
        var text = new int[6000];
        for (int i = 0; i < text.Length; i++) text[i] = (int)(new RandomStream(3).Bits(i) & (i % 7 == 0 ? 255u : 15u));
        var tokens = new TextTokens(text, 256);
        var split = new DataSplit(HeldOutEvery: 5, BlockTokens: 200);
        return new Trainer(model, new TokenWindows(tokens, 16, seed: 5, DataPart.Train, split), new TokenWindows(tokens, 16, seed: 5, DataPart.HeldOut, split), new TrainingOptions
        {
            RunFolder = Folder, Steps = Steps, Batch = 2, Length = 16, Accumulation = 4, LearningRate = 3e-3f, Warmup = 10, Seed = 5,
            EvaluationInterval = 7, EvaluationBatches = 2, CheckpointInterval = CheckpointInterval, KeepCheckpoints = 2, IsOptimizerSharded = world is not null,
        }, world: world);
    }
}
