namespace ZEngine.Models;

/// <summary>Keys and values of sequences that begin, grow and end at different times, in pages from one supply: a sequence holds no more memory than its length needs.</summary>
/// <remarks>
/// Sequences stand in slots. Before each call of <see cref="Ops.AppendKeyValues"/> or <see cref="Ops.AttentionDecode"/> on the caches of all layers,
/// <see cref="Grow"/> each sequence by the tokens that the call appends; slots that are not open are idle there. One decode serves all slots
/// at once. Page tables and lengths stand in device memory at fixed addresses, so a captured decode sees what was opened, grown and closed since.
/// With a window, which no layer looks beyond, <see cref="Grow"/> gives pages back that have fallen out of it: a sequence of any length holds those of the window and
/// of what it appends.
/// Kwon et al. 2023, arXiv:2309.06180.
/// </remarks>
public sealed class KeyValuePages : IDisposable
{
    private readonly DecodeCache[] _layers;
    private readonly Tensor[] _owned;
    private readonly Tensor _table, _lengths;
    private readonly Stack<int> _free = new();
    private readonly List<int>?[] _pages;                      // by their place in the sequence; -1 for those that are gone
    private readonly long[] _tokens;
    private readonly int[] _gone;                              // pages at a sequence's beginning that it holds no more
    private readonly long _window;

    /// <summary>Allocates every page at once.</summary>
    /// <param name="device">Where they live.</param>
    /// <param name="dtype">The type of the activations, or Int8: see <see cref="DecodeCache"/>.</param>
    /// <param name="layers">Layers with a cache of their own; they share the page table.</param>
    /// <param name="slots">Sequences at a time.</param>
    /// <param name="maxLength">Tokens of a sequence at most.</param>
    /// <param name="pages">Pages in all.</param>
    /// <param name="groups">Key heads G.</param>
    /// <param name="headDimension">Channels of a head P.</param>
    /// <param name="pageSize">Tokens of a page: 16 or a larger power of two.</param>
    /// <param name="window">The largest window of the layers, tokens that a query sees with its own; 0 where a layer sees all.</param>
    public KeyValuePages(Device device, DType dtype, int layers, int slots, long maxLength, int pages, long groups, long headDimension, int pageSize = 64, long window = 0)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(window);
        ArgumentOutOfRangeException.ThrowIfLessThan(layers, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(slots, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(maxLength, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(pages, 1);
        if (pageSize < 16 || (pageSize & pageSize - 1) != 0) throw new ArgumentException($"KeyValuePages: pageSize must be 16 or a larger power of two, got {pageSize}.");
        (PageSize, MaxLength, _layers, _pages, _tokens, _gone, _window) = (pageSize, maxLength, new DecodeCache[layers], new List<int>?[slots], new long[slots], new int[slots], window);
        var owned = new List<Tensor>();
        using TensorScope scope = TensorScope.Enter();         // what does not fit takes the tensors before it along
        Tensor Zeros(DType type, params ReadOnlySpan<long> shape)
        {
            owned.Add(Tensor.Zeros(shape, type, device));
            return owned[^1];
        }
        _table = Zeros(DType.Int32, slots, (maxLength + pageSize - 1) / pageSize);
        _lengths = Zeros(DType.Int64, layers, slots);
        Tensor tickets = Zeros(DType.Int32, slots, groups + 1);
        for (int layer = 0; layer < layers; layer++)
        {
            _layers[layer] = new DecodeCache(Zeros(dtype, pages, pageSize, groups, headDimension), Zeros(dtype, pages, pageSize, groups, headDimension), _lengths.Select(0, layer), tickets, _table,
                dtype == DType.Int8 ? Zeros(DType.Float32, pages, groups, pageSize, 2) : null, window);
            owned.Add(_layers[layer].Lengths);
        }
        _lengths.CopyFrom<long>([.. Enumerable.Repeat(-1L, layers * slots)]);
        for (int slot = 0; slot < slots; slot++) ForgetPages(slot);
        for (int page = pages; page-- > 0;) _free.Push(page);
        _owned = [.. owned];
        foreach (Tensor tensor in _owned) TensorScope.Release(tensor);
    }

    /// <summary>Tokens of a page.</summary>
    public int PageSize { get; }

    /// <summary>Tokens of a sequence at most.</summary>
    public long MaxLength { get; }

    /// <summary>Sequences at a time.</summary>
    public int Slots => _pages.Length;

    /// <summary>Pages that no sequence holds.</summary>
    public int FreePages => _free.Count;

    /// <summary>The cache of a layer: all slots.</summary>
    public DecodeCache Layer(int layer) => _layers[layer];

    /// <summary>Tokens of an open slot's sequence.</summary>
    public long LengthOf(int slot)
    {
        RequireOpen(slot);
        return _tokens[slot];
    }

    /// <summary>Begins an empty sequence in a free slot.</summary>
    /// <returns>The slot.</returns>
    /// <exception cref="InvalidOperationException">Every slot is taken.</exception>
    public int Open()
    {
        int slot = Array.IndexOf(_pages, null);
        if (slot < 0) throw new InvalidOperationException($"KeyValuePages: all {Slots} slots are taken; close one first.");
        (_pages[slot], _tokens[slot], _gone[slot]) = ([], 0, 0);
        SetLength(slot, 0);
        return slot;
    }

    /// <summary>Makes room for the tokens that the next op appends to a sequence.</summary>
    /// <exception cref="InvalidOperationException">They exceed the sequence's limit, or there are not enough free pages; nothing has changed then.</exception>
    public void Grow(int slot, long tokens)
    {
        List<int> pages = RequireOpen(slot);
        ArgumentOutOfRangeException.ThrowIfNegative(tokens);
        if (_tokens[slot] + tokens > MaxLength) throw new InvalidOperationException($"KeyValuePages: slot {slot} has {_tokens[slot]} of {MaxLength} tokens, {tokens} more do not fit.");
        long length = _tokens[slot] + tokens;
        // The next query sees nothing of what lies in front, and of the new tokens those are not kept that the window has left when they are all there.
        int first = pages.Count, all = (int)((length + PageSize - 1) / PageSize), firstKept = Math.Max(first, PagesBefore(length));
        int from = _gone[slot], gone = Math.Clamp(PagesBefore(_tokens[slot] + 1), from, Math.Max(from, first));
        int wanted = Math.Max(0, all - firstKept), available = FreePages + pages[from..gone].Count(page => page >= 0);
        if (wanted > available) throw new InvalidOperationException($"KeyValuePages: {tokens} more tokens of slot {slot} need {wanted} pages, {available} are free.");
        (_tokens[slot], _gone[slot]) = (length, gone);
        for (int index = from; index < gone; index++)
        {
            if (pages[index] >= 0) _free.Push(pages[index]);
            pages[index] = -1;
        }
        for (int index = first; index < all; index++) pages.Add(index < firstKept ? -1 : _free.Pop());
        int changed = gone > from ? from : first;
        if (changed == pages.Count) return;
        using TensorScope scope = TensorScope.Enter();
        _table.Select(0, slot).Slice(0, changed, pages.Count - changed).CopyFrom<int>(pages[changed..].ToArray());
    }

    /// <summary>Ends a sequence and gives its pages back.</summary>
    public void Close(int slot)
    {
        foreach (int page in RequireOpen(slot))
            if (page >= 0) _free.Push(page);
        _pages[slot] = null;
        SetLength(slot, -1);
        ForgetPages(slot);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Tensor tensor in _owned) tensor.Dispose();
    }

    /// <summary>Pages in front of the window of a sequence of so many tokens.</summary>
    private int PagesBefore(long length) => _window == 0 ? 0 : (int)(Math.Max(0, length - _window) / PageSize);

    private List<int> RequireOpen(int slot)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(slot);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(slot, Slots);
        return _pages[slot] ?? throw new InvalidOperationException($"KeyValuePages: slot {slot} is not open.");
    }

    /// <summary>A page that is not there is an error wherever it is used: of a sequence that was not grown, that is.</summary>
    private void ForgetPages(int slot)
    {
        using TensorScope scope = TensorScope.Enter();
        _table.Select(0, slot).CopyFrom<int>([.. Enumerable.Repeat(-1, (int)_table.Shape[1])]);
    }

    private void SetLength(int slot, long length)
    {
        using TensorScope scope = TensorScope.Enter();
        foreach (DecodeCache layer in _layers) layer.Lengths.Slice(0, slot, 1).CopyFrom<long>([length]);
    }
}
