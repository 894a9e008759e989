namespace ZEngine.Models;

/// <summary>Remembers the tokens of recent words. Words and tokens lie in two growing arrays, so a hit and a miss allocate nothing once
/// warm; when full it forgets everything, which costs less than keeping order.</summary>
internal sealed class WordCache
{
    private const int Slots = 1 << 15;
    private const int MaxWords = Slots / 4 * 3;
    private const int MaxWordLength = 64;

    private readonly Slot[] _slots = new Slot[Slots];
    private char[] _chars = new char[1 << 12];
    private int[] _tokens = new int[1 << 12];
    private int _words, _charCount, _tokenCount;

    public bool TryGet(ReadOnlySpan<char> word, out ReadOnlySpan<int> tokens)
    {
        tokens = default;
        if (word.Length > MaxWordLength) return false;
        ref Slot slot = ref Find(word, string.GetHashCode(word));
        if (slot.CharCount == 0) return false;
        tokens = _tokens.AsSpan(slot.TokenStart, slot.TokenCount);
        return true;
    }

    public void Add(ReadOnlySpan<char> word, ReadOnlySpan<int> tokens)
    {
        if (word.Length is 0 or > MaxWordLength) return;
        if (_words == MaxWords) Clear();
        int hash = string.GetHashCode(word);
        ref Slot slot = ref Find(word, hash);
        if (slot.CharCount != 0) return;
        slot = new() { Hash = hash, CharStart = _charCount, CharCount = word.Length, TokenStart = _tokenCount, TokenCount = tokens.Length };
        Append(ref _chars, ref _charCount, word);
        Append(ref _tokens, ref _tokenCount, tokens);
        _words++;
    }

    private ref Slot Find(ReadOnlySpan<char> word, int hash)
    {
        for (int i = hash & Slots - 1; ; i = i + 1 & Slots - 1)
        {
            ref Slot slot = ref _slots[i];
            if (slot.CharCount == 0) return ref slot;
            if (slot.Hash == hash && word.SequenceEqual(_chars.AsSpan(slot.CharStart, slot.CharCount))) return ref slot;
        }
    }

    private void Clear()
    {
        Array.Clear(_slots);
        _words = _charCount = _tokenCount = 0;
    }

    private static void Append<T>(ref T[] array, ref int count, ReadOnlySpan<T> items)
    {
        if (array.Length - count < items.Length) Array.Resize(ref array, Math.Max(array.Length * 2, count + items.Length));
        items.CopyTo(array.AsSpan(count));
        count += items.Length;
    }

    private struct Slot
    {
        public int Hash, CharStart, CharCount, TokenStart, TokenCount;
    }
}
