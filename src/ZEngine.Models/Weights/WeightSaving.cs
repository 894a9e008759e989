using System.Text.RegularExpressions;

namespace ZEngine.Models;

/// <summary>Plans the files of a checkpoint and puts them on disk.</summary>
internal static partial class WeightSaving
{
    public static WeightPlan PlanAs(WeightLayout layout, IReadOnlyCollection<SafetensorsTensor> tensors)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        Dictionary<string, SafetensorsTensor> byName = Named(tensors);
        var files = new List<(string, byte[], SafetensorsTensor[])>();
        bool isSame = true;
        int used = 0;
        foreach (WeightShard shard in layout.Shards)
        {
            SafetensorsTensor[] own = [.. shard.Entries.Select(entry => byName.TryGetValue(entry.Name, out SafetensorsTensor? tensor)
                ? tensor
                : throw new ArgumentException($"Tensor {WeightErrors.Quote(entry.Name)} of {shard.FileName} is missing.", nameof(tensors)))];
            used += own.Length;
            bool isShardSame = own.Zip(shard.Entries).All(pair =>
                pair.First.DTypeName == pair.Second.DTypeName && pair.First.Shape.AsSpan().SequenceEqual(pair.Second.Shape));
            isSame &= isShardSame;
            if (!isShardSame) own = SafetensorsWriter.Ordered(own);
            files.Add((shard.FileName, isShardSame ? shard.HeaderJson : SafetensorsWriter.Header(own, shard.Metadata), own));
        }
        if (used != byName.Count)
        {
            HashSet<string> known = [.. layout.Shards.SelectMany(shard => shard.Entries).Select(entry => entry.Name)];
            throw new ArgumentException($"Tensor {WeightErrors.Quote(byName.Keys.First(name => !known.Contains(name)))} is not in the layout.", nameof(tensors));
        }
        byte[]? index = layout.Index is null ? null : isSame ? layout.Index.Text : WeightIndex.Format(layout.Index.WeightMap, TotalBytes(tensors), layout.Index.Metadata);
        return new WeightPlan(files, index);
    }

    public static WeightPlan PlanNew(IReadOnlyCollection<SafetensorsTensor> tensors, long maxShardBytes, IReadOnlyCollection<KeyValuePair<string, string>> metadata)
    {
        _ = Named(tensors);
        List<List<SafetensorsTensor>> shards = Split(tensors, maxShardBytes);
        var files = new List<(string, byte[], SafetensorsTensor[])>();
        var weightMap = new List<KeyValuePair<string, string>>();
        for (int i = 0; i < shards.Count; i++)
        {
            string fileName = shards.Count == 1 ? WeightFiles.SingleFileName : $"model-{i + 1:00000}-of-{shards.Count:00000}.safetensors";
            SafetensorsTensor[] own = SafetensorsWriter.Ordered(shards[i]);
            files.Add((fileName, SafetensorsWriter.Header(own, metadata), own));
            weightMap.AddRange(own.Select(tensor => new KeyValuePair<string, string>(tensor.Name, fileName)));
        }
        return new WeightPlan(files, shards.Count == 1 ? null : WeightIndex.Format(weightMap, TotalBytes(tensors)));
    }

    /// <summary>Writes every file under a temporary name, and only when all are on disk gives them their names.</summary>
    /// <remarks>
    /// The renames of several files are no one step. So that a stop between them leaves no folder in which old shards pass for new
    /// ones, the old index goes first and the new one comes last: between the two the folder does not open.
    /// </remarks>
    public static void Save(string folder, WeightPlan plan)
    {
        ArgumentNullException.ThrowIfNull(folder);
        Directory.CreateDirectory(folder);
        string indexPath = Path.Combine(folder, WeightIndex.FileName);
        var prepared = new List<string>();
        try
        {
            foreach ((string fileName, byte[] header, SafetensorsTensor[] tensors) in plan.Files)
            {
                string path = Path.Combine(folder, fileName);
                DurableFile.Prepare(path, stream => SafetensorsWriter.WriteFile(stream, header, tensors));
                prepared.Add(path);
            }
            if (plan.Index is not null)
            {
                DurableFile.Prepare(indexPath, stream => stream.Write(plan.Index));
                prepared.Add(indexPath);
            }
        }
        catch
        {
            foreach (string path in prepared) DurableFile.Abandon(path);
            throw;
        }
        File.Delete(indexPath);
        if (plan.Index is not null) File.Delete(Path.Combine(folder, WeightFiles.SingleFileName));
        foreach (string path in prepared) DurableFile.Commit(path);
        RemoveStaleShards(folder, plan);
    }

    private static void RemoveStaleShards(string folder, WeightPlan plan)
    {
        HashSet<string> current = [.. plan.Files.Select(file => file.FileName)];
        foreach (string path in Directory.EnumerateFiles(folder, "model-*-of-*.safetensors"))
        {
            string name = Path.GetFileName(path);
            if (ShardName().IsMatch(name) && !current.Contains(name)) File.Delete(path);
        }
    }

    // A tensor above the limit stands alone and does not close the shard that is being filled, as in the reference.
    private static List<List<SafetensorsTensor>> Split(IEnumerable<SafetensorsTensor> tensors, long maxShardBytes)
    {
        var shards = new List<List<SafetensorsTensor>>();
        var open = new List<SafetensorsTensor>();
        long openBytes = 0;
        foreach (SafetensorsTensor tensor in tensors)
        {
            if (tensor.ByteCount > maxShardBytes)
            {
                shards.Add([tensor]);
                continue;
            }
            if (tensor.ByteCount > maxShardBytes - openBytes)
            {
                shards.Add(open);
                open = [];
                openBytes = 0;
            }
            open.Add(tensor);
            openBytes += tensor.ByteCount;
        }
        if (open.Count > 0 || shards.Count == 0) shards.Add(open);
        return shards;
    }

    private static Dictionary<string, SafetensorsTensor> Named(IReadOnlyCollection<SafetensorsTensor> tensors)
    {
        var byName = new Dictionary<string, SafetensorsTensor>(StringComparer.Ordinal);
        foreach (SafetensorsTensor tensor in tensors)
        {
            if (!byName.TryAdd(tensor.Name, tensor)) throw new ArgumentException($"Two tensors are named {WeightErrors.Quote(tensor.Name)}.", nameof(tensors));
        }
        return byName;
    }

    private static long TotalBytes(IEnumerable<SafetensorsTensor> tensors) => tensors.Aggregate(0L, (sum, tensor) => checked(sum + tensor.ByteCount));

    [GeneratedRegex(@"^model-\d{5}-of-\d{5}\.safetensors$", RegexOptions.CultureInvariant)]
    private static partial Regex ShardName();
}
