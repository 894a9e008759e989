using System.Numerics;

namespace ZEngine.Models;

/// <summary>Looks up the merge of two adjacent tokens: an open-addressed table, because this is the innermost loop of encoding.</summary>
internal sealed class PairTable
{
    private const ulong Empty = ulong.MaxValue;
    private readonly ulong[] _keys;
    private readonly (int Rank, int Token)[] _values;
    private readonly int _shift;

    public PairTable(int capacity)
    {
        int size = (int)BitOperations.RoundUpToPowerOf2((uint)Math.Max(16, capacity * 2L));
        _keys = new ulong[size];
        Array.Fill(_keys, Empty);
        _values = new (int, int)[size];
        _shift = 64 - BitOperations.Log2((uint)size);
    }

    /// <summary>Sets the merge of a pair; a later rank for the same pair wins, as it does in the reference.</summary>
    public void Set(int left, int right, int rank, int token)
    {
        int slot = Find(Key(left, right));
        _keys[slot] = Key(left, right);
        _values[slot] = (rank, token);
    }

    /// <summary>The rank of a pair's merge and the token it makes; rank <see cref="int.MaxValue"/> when the pair does not merge.</summary>
    public (int Rank, int Token) Get(int left, int right)
    {
        int slot = Find(Key(left, right));
        return _keys[slot] == Empty ? (int.MaxValue, -1) : _values[slot];
    }

    /// <summary>All pairs, lowest rank first.</summary>
    public IEnumerable<(int Left, int Right)> InRankOrder() =>
        Enumerable.Range(0, _keys.Length).Where(slot => _keys[slot] != Empty).OrderBy(slot => _values[slot].Rank)
            .Select(slot => ((int)(_keys[slot] >> 32), (int)_keys[slot]));

    private static ulong Key(int left, int right) => (ulong)(uint)left << 32 | (uint)right;

    private int Find(ulong key)
    {
        int mask = _keys.Length - 1;
        int slot = (int)(key * 0x9E3779B97F4A7C15 >> _shift);
        while (_keys[slot] != key && _keys[slot] != Empty) slot = slot + 1 & mask;
        return slot;
    }
}
