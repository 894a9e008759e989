using System.Text.Json;

namespace ZEngine.Tests.Oracles;

/// <summary>One sequence: steps Start to End (exclusive) of batch row Row, the Index-th of all.</summary>
internal readonly record struct Sequence(int Index, int Row, int Start, int End)
{
    public int Length => End - Start;

    /// <summary>The rows of a batch, or the sequences that cu_seqlens packs into a batch of one.</summary>
    public static Sequence[] All(JsonElement attrs, int batch, int length, string name = "cu_seqlens")
    {
        if (attrs.Ints(name) is not { } ends) return [.. Enumerable.Range(0, batch).Select(b => new Sequence(b, b, 0, length))];
        if (batch != 1 || ends[0] != 0 || ends[^1] != length) throw new ArgumentException($"{name} must pack one row from 0 to {length}.");
        return [.. Enumerable.Range(0, ends.Length - 1).Select(i => new Sequence(i, 0, ends[i], ends[i + 1]))];
    }

    /// <summary>The state this sequence starts from: its own when there is one each, else the single one belongs to the first; −1 is zero.</summary>
    public int StateOf<T>(OracleTensor<T>? states, int sequences) =>
        states is null ? -1 : states.Shape[0] == sequences ? Index : Index == 0 ? 0 : -1;
}
