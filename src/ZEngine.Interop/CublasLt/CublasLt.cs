using System.Runtime.InteropServices;

namespace ZEngine.Interop;

/// <summary>An error of cuBLASLt, with the library's own name for it.</summary>
public sealed class CublasLtException : Exception
{
    /// <summary>An error with a message.</summary>
    public CublasLtException(string message) : base(message) { }

    /// <summary>An error with a message and its cause.</summary>
    public CublasLtException(string message, Exception inner) : base(message, inner) { }

    /// <summary>An error without a message.</summary>
    public CublasLtException() { }
}

/// <summary>cuBLASLt, NVIDIA's library of matrix products, bound at run time. Only <see cref="CreateHandle"/> and what takes a handle need a GPU.</summary>
public sealed unsafe class CublasLt
{
    private const int LeastVersion = 120000, Success = 0, NotSupported = 15;

    /// <summary>Sums that are split over the inner axis are put together from the workspace, all parts in order: the same bits whatever the schedule.</summary>
    private const int ReductionInWorkspace = 2;

    private const ulong WorkspaceLimit = 32 << 20;

    // cublasLtMatmulDescAttributes_t, cublasLtMatrixLayoutAttribute_t and cublasLtMatmulPreferenceAttributes_t.
    private const int TransposeA = 3, TransposeB = 4, Epilogue = 7, BiasPointer = 8, KeptPointer = 11, KeptLeading = 12, KeptNext = 13, LayoutCount = 5, LayoutNext = 6, WorkspaceBytes = 1, Reductions = 3, AlignmentA = 5, AlignmentB = 6, AlignmentC = 7, AlignmentD = 8;

    private static readonly Lock Gate = new();
    private static CublasLt? s_loaded;

    private readonly nint _library;
    private readonly delegate* unmanaged<int, byte*> _statusName, _statusText;
    private readonly delegate* unmanaged<nint*, int> _create, _preferenceCreate;
    private readonly delegate* unmanaged<nint, int> _destroy, _productDestroy, _layoutDestroy, _preferenceDestroy;
    private readonly delegate* unmanaged<nint*, int, int, int> _productCreate;
    private readonly delegate* unmanaged<nint*, int, ulong, ulong, long, int> _layoutCreate;
    private readonly delegate* unmanaged<nint, int, void*, nuint, int> _productSet, _layoutSet, _preferenceSet;
    private readonly delegate* unmanaged<nint, int, void*, nuint, nuint*, int> _productGet, _layoutGet, _preferenceGet;
    private readonly delegate* unmanaged<nint, nint, nint, nint, nint, nint, nint, int, CublasLtHeuristic*, int*, int> _heuristic;
    private readonly delegate* unmanaged<nint, nint, void*, nint, nint, nint, nint, void*, nint, nint, nint, nint, CublasLtAlgorithm*, nint, nuint, nint, int> _multiply;

    private CublasLt(nint library, string path)
    {
        (_library, LibraryPath) = (library, path);
        nuint version = ((delegate* unmanaged<nuint>)Export("cublasLtGetVersion"))();
        if (version < LeastVersion) throw new NativeLibraryException($"{path}: cuBLASLt {version} is too old; version 12 ({LeastVersion}) or later is needed.");
        // Since 12.0 the number is 10000 · major + 100 · minor + patch.
        Version = new Version((int)(version / 10000), (int)(version / 100 % 100), (int)(version % 100));
        _statusName = (delegate* unmanaged<int, byte*>)Export("cublasLtGetStatusName");
        _statusText = (delegate* unmanaged<int, byte*>)Export("cublasLtGetStatusString");
        _create = (delegate* unmanaged<nint*, int>)Export("cublasLtCreate");
        _destroy = (delegate* unmanaged<nint, int>)Export("cublasLtDestroy");
        _productCreate = (delegate* unmanaged<nint*, int, int, int>)Export("cublasLtMatmulDescCreate");
        _productDestroy = (delegate* unmanaged<nint, int>)Export("cublasLtMatmulDescDestroy");
        _productSet = (delegate* unmanaged<nint, int, void*, nuint, int>)Export("cublasLtMatmulDescSetAttribute");
        _productGet = (delegate* unmanaged<nint, int, void*, nuint, nuint*, int>)Export("cublasLtMatmulDescGetAttribute");
        _layoutCreate = (delegate* unmanaged<nint*, int, ulong, ulong, long, int>)Export("cublasLtMatrixLayoutCreate");
        _layoutDestroy = (delegate* unmanaged<nint, int>)Export("cublasLtMatrixLayoutDestroy");
        _layoutSet = (delegate* unmanaged<nint, int, void*, nuint, int>)Export("cublasLtMatrixLayoutSetAttribute");
        _layoutGet = (delegate* unmanaged<nint, int, void*, nuint, nuint*, int>)Export("cublasLtMatrixLayoutGetAttribute");
        _preferenceCreate = (delegate* unmanaged<nint*, int>)Export("cublasLtMatmulPreferenceCreate");
        _preferenceDestroy = (delegate* unmanaged<nint, int>)Export("cublasLtMatmulPreferenceDestroy");
        _preferenceSet = (delegate* unmanaged<nint, int, void*, nuint, int>)Export("cublasLtMatmulPreferenceSetAttribute");
        _preferenceGet = (delegate* unmanaged<nint, int, void*, nuint, nuint*, int>)Export("cublasLtMatmulPreferenceGetAttribute");
        _heuristic = (delegate* unmanaged<nint, nint, nint, nint, nint, nint, nint, int, CublasLtHeuristic*, int*, int>)Export("cublasLtMatmulAlgoGetHeuristic");
        _multiply = (delegate* unmanaged<nint, nint, void*, nint, nint, nint, nint, void*, nint, nint, nint, nint, CublasLtAlgorithm*, nint, nuint, nint, int>)Export("cublasLtMatmul");
    }

    /// <summary>The library's version.</summary>
    public Version Version { get; }

    /// <summary>The file it was loaded from.</summary>
    public string LibraryPath { get; }

    /// <summary>The cuBLASLt of this machine.</summary>
    /// <exception cref="NativeLibraryException">There is none; the message says where it was looked for, what the loader said, and how to get it.</exception>
    public static CublasLt Load()
    {
        lock (Gate) return s_loaded ??= Load(NativeLibraries.CublasLtCandidates());
    }

    internal static CublasLt Load(IEnumerable<string> candidates)
    {
        var failures = new List<string>();
        (nint library, string path) = NativeLibraries.LoadFirst(candidates, failures: failures);
        return library != 0 ? new CublasLt(library, path) : throw new NativeLibraryException(
            $"cuBLASLt, NVIDIA's matrix products, was not found ({string.Join("; ", failures)}); the engine's own kernels multiply. To use it, install the CUDA toolkit 12 or 13, the Python "
            + $"wheel nvidia-cublas-cu12 or Debian's libcublaslt12, or set {NativeLibraries.CublasLtVariable} to its file or folder.");
    }

    /// <summary>Begins work on the current device. Needs a GPU.</summary>
    public nint CreateHandle()
    {
        nint handle;
        Check(_create(&handle), "cublasLtCreate");
        return handle;
    }

    /// <summary>Ends what <see cref="CreateHandle"/> began.</summary>
    public void DestroyHandle(nint handle) => Check(_destroy(handle), "cublasLtDestroy");

    /// <summary>Finds how to compute a product; null where the library has no way.</summary>
    /// <param name="handle">Of the device.</param>
    /// <param name="product">The product.</param>
    public CublasLtPlan? Plan(nint handle, in CublasLtProduct product)
    {
        var plan = new CublasLtPlan(this, handle, product);
        if (plan.HasAlgorithm) return plan;
        plan.Dispose();
        return null;
    }

    internal nint NewProduct(in CublasLtProduct product)
    {
        nint made;
        Check(_productCreate(&made, (int)product.Compute, (int)CublasLtType.Float32), "cublasLtMatmulDescCreate");
        // 1 is transposed (cublasOperation_t).
        Set(_productSet, made, TransposeA, product.TransposeA ? 1 : 0, "cublasLtMatmulDescSetAttribute");
        Set(_productSet, made, TransposeB, product.TransposeB ? 1 : 0, "cublasLtMatmulDescSetAttribute");
        Set(_productSet, made, Epilogue, (int)product.Epilogue, "cublasLtMatmulDescSetAttribute");
        if (product.Epilogue.HasFlag(CublasLtEpilogue.Kept))
        {
            // The search reads the alignment from the pointer.
            SetKept(made, CublasLtProduct.KeptAlignment);
            Set(_productSet, made, KeptLeading, product.D.Leading, "cublasLtMatmulDescSetAttribute");
            Set(_productSet, made, KeptNext, product.D.Next, "cublasLtMatmulDescSetAttribute");
        }
        return made;
    }

    internal void SetBias(nint product, nint bias) => Set(_productSet, product, BiasPointer, bias, "cublasLtMatmulDescSetAttribute");

    internal void SetKept(nint product, nint kept) => Set(_productSet, product, KeptPointer, kept, "cublasLtMatmulDescSetAttribute");

    internal void FreeProduct(nint product) => Check(_productDestroy(product), "cublasLtMatmulDescDestroy");

    internal nint NewLayout(CublasLtLayout layout)
    {
        nint made;
        Check(_layoutCreate(&made, (int)layout.Type, (ulong)layout.Rows, (ulong)layout.Columns, layout.Leading), "cublasLtMatrixLayoutCreate");
        Set(_layoutSet, made, LayoutCount, layout.Count, "cublasLtMatrixLayoutSetAttribute");
        Set(_layoutSet, made, LayoutNext, layout.Next, "cublasLtMatrixLayoutSetAttribute");
        return made;
    }

    internal void FreeLayout(nint layout) => Check(_layoutDestroy(layout), "cublasLtMatrixLayoutDestroy");

    internal nint NewPreference(in CublasLtProduct product)
    {
        nint made;
        Check(_preferenceCreate(&made), "cublasLtMatmulPreferenceCreate");
        const string set = "cublasLtMatmulPreferenceSetAttribute";
        Set(_preferenceSet, made, WorkspaceBytes, WorkspaceLimit, set);
        Set(_preferenceSet, made, Reductions, ReductionInWorkspace, set);
        Set(_preferenceSet, made, AlignmentA, product.AlignmentA, set);
        Set(_preferenceSet, made, AlignmentB, product.AlignmentB, set);
        Set(_preferenceSet, made, AlignmentC, product.AlignmentD, set);
        Set(_preferenceSet, made, AlignmentD, product.AlignmentD, set);
        return made;
    }

    internal void FreePreference(nint preference) => Check(_preferenceDestroy(preference), "cublasLtMatmulPreferenceDestroy");

    /// <summary>The best way by the library's own order.</summary>
    internal bool TryFind(nint handle, nint product, nint a, nint b, nint d, nint preference, out CublasLtHeuristic found)
    {
        int count = 0;
        CublasLtHeuristic result = default;
        int status = _heuristic(handle, product, a, b, d, d, preference, 1, &result, &count);
        found = result;
        if (status == NotSupported) return false;
        Check(status, "cublasLtMatmulAlgoGetHeuristic");
        return count == 1 && result.State == Success;
    }

    internal void Multiply(nint handle, nint product, nint a, nint aLayout, nint b, nint bLayout, float beta, nint d, nint dLayout, CublasLtAlgorithm* algorithm, nint workspace, nuint bytes, nint stream)
    {
        float one = 1;
        Check(_multiply(handle, product, &one, a, aLayout, b, bLayout, &beta, d, dLayout, d, dLayout, algorithm, workspace, bytes, stream), "cublasLtMatmul");
    }

    /// <summary>What the library has stored for a product's description: the same attribute that was set.</summary>
    internal T ReadProduct<T>(nint product, int attribute) where T : unmanaged => Get<T>(_productGet, product, attribute, "cublasLtMatmulDescGetAttribute");

    /// <inheritdoc cref="ReadProduct"/>
    internal T ReadLayout<T>(nint layout, int attribute) where T : unmanaged => Get<T>(_layoutGet, layout, attribute, "cublasLtMatrixLayoutGetAttribute");

    /// <inheritdoc cref="ReadProduct"/>
    internal T ReadPreference<T>(nint preference, int attribute) where T : unmanaged => Get<T>(_preferenceGet, preference, attribute, "cublasLtMatmulPreferenceGetAttribute");

    private void Set<T>(delegate* unmanaged<nint, int, void*, nuint, int> call, nint target, int attribute, T value, string name) where T : unmanaged =>
        Check(call(target, attribute, &value, (nuint)sizeof(T)), name);

    private T Get<T>(delegate* unmanaged<nint, int, void*, nuint, nuint*, int> call, nint target, int attribute, string name) where T : unmanaged
    {
        T value;
        nuint written;
        Check(call(target, attribute, &value, (nuint)sizeof(T), &written), name);
        return written == (nuint)sizeof(T) ? value : throw new CublasLtException($"{name}: attribute {attribute} has {written} bytes, not {sizeof(T)}.");
    }

    private nint Export(string name) =>
        NativeLibrary.TryGetExport(_library, name, out nint address) ? address : throw new NativeLibraryException($"{LibraryPath} has no function {name}; cuBLASLt 12 or 13 is needed.");

    private void Check(int status, string call)
    {
        if (status == Success) return;
        throw new CublasLtException($"{call}: {Marshal.PtrToStringUTF8((nint)_statusName(status))} ({status}): {Marshal.PtrToStringUTF8((nint)_statusText(status))}. {LibraryPath} is cuBLASLt {Version}; {NativeLibraries.CublasLtVariable}={NativeLibraries.Off} leaves it away.");
    }
}
