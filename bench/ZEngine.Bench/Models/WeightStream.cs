using ZEngine.Models;

namespace ZEngine.Bench;

/// <summary>The bytes that decoding one token has to stream, where they lie: what a plain threaded sum over them costs is the least that a token can.</summary>
/// <remarks>Every weight counts once per use. Between two uses of Zamba2's shared block the weights of some layers pass, so it is streamed again.</remarks>
internal sealed unsafe class WeightStream
{
    private const int PieceBytes = 64 << 10, Round = 4 * 16 * sizeof(float);       // what is left of a tensor below a round is not summed

    private readonly List<(nint Address, long Bytes)> _pieces = [];
    private readonly float[] _sums;

    public WeightStream(LanguageModel model)
    {
        Parameter[] shared = [.. model.Parameters.Where(IsShared)];
        bool isSecondUse = false;
        foreach (Parameter parameter in model.Parameters.OrderBy(IsHead))
        {
            Add(parameter);
            // The projection behind the shared block, once per use: the first use is where the block was declared.
            if (!parameter.Name.EndsWith(".linear.weight", StringComparison.Ordinal)) continue;
            if (isSecondUse) foreach (Parameter again in shared) Add(again);
            isSecondUse = true;
        }
        _sums = new float[_pieces.Count];
    }

    public long Bytes { get; private set; }

    /// <summary>Reads them all once, on the engine's threads.</summary>
    public void Sum() => CpuThreads.For(_pieces.Count, 1, new SumJob(this));

    /// <summary>The embedding is declared first and, as the head of these models, read last. In another order than the token's the sum would find in the caches what the token left, and the token nothing.</summary>
    private static bool IsHead(Parameter parameter) => parameter.Name.Contains("embed", StringComparison.Ordinal);

    private static bool IsShared(Parameter parameter) =>
        parameter.Name.Contains(".shared_transformer.", StringComparison.Ordinal) && !parameter.Name.Contains("adapter", StringComparison.Ordinal);

    private void Add(Parameter parameter)
    {
        long bytes = parameter.Count * parameter.Value.DType.Size;
        Bytes += bytes;
        for (long at = 0; at < bytes; at += PieceBytes) _pieces.Add((parameter.Value.Address + (nint)at, Math.Min(PieceBytes, bytes - at)));
    }

    private readonly struct SumJob(WeightStream stream) : IParallelJob
    {
        public void Run(long begin, long end)
        {
            for (int i = (int)begin; i < end; i++)
            {
                (nint address, long bytes) = stream._pieces[i];
                stream._sums[i] = Machine.Sum((float*)address, bytes / Round * (Round / sizeof(float)));
            }
        }
    }
}
