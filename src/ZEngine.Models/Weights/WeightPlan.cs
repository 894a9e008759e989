namespace ZEngine.Models;

/// <summary>What is to be written: files with header and tensors, and the index when there are shards.</summary>
internal sealed record WeightPlan(IReadOnlyList<(string FileName, byte[] Header, SafetensorsTensor[] Tensors)> Files, byte[]? Index);
