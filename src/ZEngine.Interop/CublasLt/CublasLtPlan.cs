namespace ZEngine.Interop;

/// <summary>How cuBLASLt computes one product: descriptions, and the way that was found. Any thread may use it.</summary>
public sealed unsafe class CublasLtPlan : IDisposable
{
    private readonly CublasLt _library;
    private readonly nint _handle;
    private readonly CublasLtEpilogue _epilogue;
    private readonly Lock _gate = new();
    private readonly CublasLtHeuristic _found;
    private nint _product, _a, _b, _d;

    internal CublasLtPlan(CublasLt library, nint handle, in CublasLtProduct product)
    {
        (_library, _handle, _epilogue) = (library, handle, product.Epilogue);
        (_product, _a, _b, _d) = (library.NewProduct(product), library.NewLayout(product.A), library.NewLayout(product.B), library.NewLayout(product.D));
        nint preference = library.NewPreference(product);
        HasAlgorithm = library.TryFind(handle, _product, _a, _b, _d, preference, out _found);
        library.FreePreference(preference);
    }

    internal bool HasAlgorithm { get; }

    /// <summary>Bytes of device memory, at a multiple of 256, that a run needs.</summary>
    public long WorkspaceBytes => (long)_found.WorkspaceBytes;

    /// <summary>Puts the product into a stream: D = f(op(A)·op(B) (+ bias)), or D += that; <paramref name="kept"/> lies as D does.</summary>
    public void Run(nint a, nint b, nint bias, nint kept, nint d, bool isAdding, nint workspace, nint stream)
    {
        lock (_gate)                                           // bias and kept are part of the description
        {
            ObjectDisposedException.ThrowIf(_product == 0, this);
            if (_epilogue.HasFlag(CublasLtEpilogue.Bias)) _library.SetBias(_product, bias);
            if (_epilogue.HasFlag(CublasLtEpilogue.Kept)) _library.SetKept(_product, kept);
            CublasLtAlgorithm algorithm = _found.Algorithm;
            _library.Multiply(_handle, _product, a, _a, b, _b, isAdding ? 1 : 0, d, _d, &algorithm, workspace, _found.WorkspaceBytes, stream);
        }
    }

    /// <summary>Frees the descriptions.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            if (_product == 0) return;
            _library.FreeProduct(_product);
            foreach (nint layout in (ReadOnlySpan<nint>)[_a, _b, _d]) _library.FreeLayout(layout);
            _product = 0;
        }
    }
}
