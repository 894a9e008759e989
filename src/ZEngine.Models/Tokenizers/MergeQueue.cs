namespace ZEngine.Models;

/// <summary>Applies merges to one word in O(n log n): a linked list of symbols and a binary heap of candidate merges, lowest rank first,
/// then leftmost. Buffers are kept for the next word.</summary>
internal sealed class MergeQueue
{
    private int[] _symbols = new int[64];
    private int[] _next = new int[64];
    private int[] _previous = new int[64];
    private (int Rank, int Token)[] _merge = new (int, int)[64];   // of the symbol here with the one after it
    private ulong[] _heap = new ulong[64];                          // rank in the upper half, position in the lower
    private int _count, _heapCount;

    public void Clear() => _count = 0;

    public void Add(int symbol)
    {
        if (_count == _symbols.Length) Grow();
        _symbols[_count++] = symbol;
    }

    /// <summary>Merges the added symbols until no pair has a merge, and appends what remains.</summary>
    public void MergeInto(List<int> tokens, PairTable merges)
    {
        int n = _count;
        _heapCount = 0;
        for (int i = 0; i < n; i++)
        {
            _previous[i] = i - 1;
            _next[i] = i + 1;
            _merge[i] = i + 1 < n ? merges.Get(_symbols[i], _symbols[i + 1]) : (int.MaxValue, -1);
            if (_merge[i].Rank != int.MaxValue) _heap[_heapCount++] = Entry(i);
        }
        for (int i = _heapCount / 2 - 1; i >= 0; i--) SiftDown(i);

        while (_heapCount > 0)
        {
            ulong entry = Pop();
            int at = (int)(uint)entry;
            // An entry is stale when its symbol, or the symbol after it, has merged since: the rank held here is then another.
            if (_symbols[at] < 0 || _merge[at].Rank != (int)(entry >> 32)) continue;

            int right = _next[at];
            _symbols[at] = _merge[at].Token;
            _symbols[right] = -1;
            int after = _next[right];
            _next[at] = after;
            if (after < n) _previous[after] = at;
            Update(at, n, merges);
            if (_previous[at] >= 0) Update(_previous[at], n, merges);
        }

        for (int i = 0; i < n; i = _next[i]) tokens.Add(_symbols[i]);
    }

    private void Update(int at, int n, PairTable merges)
    {
        int right = _next[at];
        _merge[at] = right < n ? merges.Get(_symbols[at], _symbols[right]) : (int.MaxValue, -1);
        if (_merge[at].Rank != int.MaxValue) Push(Entry(at));
    }

    private ulong Entry(int at) => (ulong)(uint)_merge[at].Rank << 32 | (uint)at;

    private void Push(ulong entry)
    {
        if (_heapCount == _heap.Length) Array.Resize(ref _heap, _heap.Length * 2);
        int i = _heapCount++;
        for (int parent; i > 0 && _heap[parent = (i - 1) / 2] > entry; i = parent) _heap[i] = _heap[parent];
        _heap[i] = entry;
    }

    private ulong Pop()
    {
        ulong top = _heap[0];
        _heap[0] = _heap[--_heapCount];
        if (_heapCount > 1) SiftDown(0);
        return top;
    }

    private void SiftDown(int i)
    {
        ulong entry = _heap[i];
        for (int child; (child = 2 * i + 1) < _heapCount; i = child)
        {
            if (child + 1 < _heapCount && _heap[child + 1] < _heap[child]) child++;
            if (_heap[child] >= entry) break;
            _heap[i] = _heap[child];
        }
        _heap[i] = entry;
    }

    private void Grow()
    {
        int size = _symbols.Length * 2;
        Array.Resize(ref _symbols, size);
        Array.Resize(ref _next, size);
        Array.Resize(ref _previous, size);
        Array.Resize(ref _merge, size);
        if (_heap.Length < size) Array.Resize(ref _heap, size);
    }
}
