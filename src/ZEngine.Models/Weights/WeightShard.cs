namespace ZEngine.Models;

/// <summary>One file of a layout: its header as it was read, and what the header says.</summary>
internal sealed record WeightShard(string FileName, byte[] HeaderJson, KeyValuePair<string, string>[]? Metadata, IReadOnlyList<SafetensorsEntry> Entries);
