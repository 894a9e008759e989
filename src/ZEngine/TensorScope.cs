namespace ZEngine;

/// <summary>Owns every tensor made on this thread until it is disposed.</summary>
/// <remarks>
/// A ref struct, so that the compiler rejects a scope held across an <c>await</c>. Scopes nest; a <see cref="Tape"/> is a scope.
/// A tensor that an open tape needs for its backward pass outlives an inner scope and goes with the tape.
/// </remarks>
public readonly ref struct TensorScope : IDisposable
{
    [ThreadStatic] private static Owned? t_innermost;
    [ThreadStatic] private static Owned? t_spare;

    private readonly Owned _owned;

    private TensorScope(Owned owned) => _owned = owned;

    /// <summary>Opens a scope inside the innermost open one.</summary>
    public static TensorScope Enter()
    {
        Owned owned = t_spare ?? new Owned();
        t_spare = owned.Outer;
        owned.Outer = t_innermost;
        t_innermost = owned;
        return new TensorScope(owned);
    }

    /// <summary>Moves a tensor of this scope to the enclosing one, or to the caller when there is none.</summary>
    /// <returns>The same tensor.</returns>
    public Tensor Keep(Tensor tensor)
    {
        TryKeep(tensor);
        return tensor;
    }

    /// <summary>As <see cref="Keep"/>; says whether the tensor was this scope's.</summary>
    internal bool TryKeep(Tensor tensor)
    {
        if (!_owned.Tensors.Remove(tensor)) return false;
        _owned.Outer?.Tensors.Add(tensor);
        return true;
    }

    /// <summary>Takes a tensor out of whichever open scope of this thread owns it: from now on the caller disposes it.</summary>
    /// <returns>The same tensor.</returns>
    public static Tensor Release(Tensor tensor)
    {
        for (Owned? owned = t_innermost; owned is not null; owned = owned.Outer)
            if (owned.Tensors.Remove(tensor)) break;
        return tensor;
    }

    /// <summary>Gives a tensor back before its scope ends, unless an open tape needs it.</summary>
    public static void Drop(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        if (tensor.Keeper is not { IsClosed: false }) Release(tensor).Dispose();
    }

    /// <summary>Disposes the scope's tensors.</summary>
    /// <exception cref="InvalidOperationException">An inner scope is still open.</exception>
    public void Dispose()
    {
        if (t_innermost != _owned) throw new InvalidOperationException("TensorScope: scopes must be disposed in the reverse order of their opening, once.");
        t_innermost = _owned.Outer;                            // first, so that an error below leaves the order intact
        foreach (Tensor tensor in _owned.Tensors)
        {
            if (tensor.Keeper is { IsClosed: false } tape && tape.Scope != _owned && !tensor.IsDisposed) tape.Scope.Tensors.Add(tensor);
            else tensor.Dispose();
        }
        _owned.Tensors.Clear();
        (_owned.Outer, t_spare) = (t_spare, _owned);
    }

    internal Owned Tensors => _owned;

    internal static void Adopt(Tensor tensor) => t_innermost?.Tensors.Add(tensor);

    /// <summary>The tensors of one open scope. Closed ones wait in a list for reuse.</summary>
    internal sealed class Owned
    {
        public TensorList Tensors { get; } = new();
        public Owned? Outer { get; set; }
    }

    /// <summary>A list that forgets an element by overwriting it with the last: removal is mostly of recent ones.</summary>
    internal sealed class TensorList
    {
        private Tensor[] _items = new Tensor[16];
        private int _count;

        public void Add(Tensor tensor)
        {
            if (_count == _items.Length) Array.Resize(ref _items, 2 * _count);
            _items[_count++] = tensor;
        }

        public bool Remove(Tensor tensor)
        {
            int at = _count == 0 ? -1 : Array.LastIndexOf(_items, tensor, _count - 1, _count);
            if (at < 0) return false;
            _items[at] = _items[--_count];
            return true;
        }

        public void Clear()
        {
            Array.Clear(_items, 0, _count);
            _count = 0;
        }

        public Span<Tensor>.Enumerator GetEnumerator() => _items.AsSpan(0, _count).GetEnumerator();
    }
}
