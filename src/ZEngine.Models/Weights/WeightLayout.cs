namespace ZEngine.Models;

/// <summary>How a checkpoint was laid out in files: enough to write the same tensors into the same bytes.</summary>
/// <remarks>It holds no mapping and outlives the <see cref="WeightFiles"/> it came from.</remarks>
public sealed class WeightLayout
{
    internal WeightLayout(IReadOnlyList<WeightShard> shards, WeightIndex? index)
    {
        Shards = shards;
        Index = index;
    }

    /// <summary>The names of the safetensors files.</summary>
    public IReadOnlyList<string> FileNames => [.. Shards.Select(shard => shard.FileName)];

    /// <summary>Whether an index file names the shard of every tensor.</summary>
    public bool IsSharded => Index is not null;

    internal IReadOnlyList<WeightShard> Shards { get; }

    internal WeightIndex? Index { get; }
}
