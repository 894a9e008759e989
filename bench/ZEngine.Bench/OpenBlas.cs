using System.Reflection;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace ZEngine.Bench;

/// <summary>The peer of the matrix product: OpenBLAS as Debian packs it (<c>libopenblas0-pthread</c>). Only the bench knows it.</summary>
internal static unsafe partial class OpenBlas
{
    private const string Library = "openblas";

    // Of several OpenBLAS builds the one with its own threads, not OpenMP's.
    private static readonly string[] s_names =
        ["/usr/lib/x86_64-linux-gnu/openblas-pthread/libopenblas.so.0", "/usr/lib/aarch64-linux-gnu/openblas-pthread/libopenblas.so.0", "libopenblas.so.0", "libopenblas.so", "libopenblas"];

    private static readonly nint s_library = Load();

    public static bool IsPresent => s_library != 0;

    public static string Description
    {
        get
        {
            if (!IsPresent) return "not found: install libopenblas0-pthread for the comparison";
            string core = Marshal.PtrToStringUTF8((nint)GetCoreName()) ?? "";
            // A release that is older than the processor falls back to AVX2.
            bool isNarrow = Vector512.IsHardwareAccelerated && core is ("Haswell" or "Zen");
            return $"{Marshal.PtrToStringUTF8((nint)GetConfig())}; core {core}{(isNarrow ? " (AVX2; set OPENBLAS_CORETYPE=SkylakeX for its AVX-512 kernels)" : "")}";
        }
    }

    public static int Threads { set { if (IsPresent) SetThreads(value); } }

    /// <summary>C [m, n] = op(A)·op(B), all row-major and dense.</summary>
    public static void Multiply(bool transposeA, bool transposeB, long m, long n, long k, float* a, float* b, float* c)
    {
        const int rowMajor = 101, plain = 111, transposed = 112;
        Sgemm(rowMajor, transposeA ? transposed : plain, transposeB ? transposed : plain, (int)m, (int)n, (int)k,
            1, a, (int)(transposeA ? m : k), b, (int)(transposeB ? k : n), 0, c, (int)n);
    }

    private static nint Load()
    {
        nint library = 0;
        foreach (string name in s_names)
            if (NativeLibrary.TryLoad(name, out library)) break;
        if (library != 0) NativeLibrary.SetDllImportResolver(Assembly.GetExecutingAssembly(), (name, _, _) => name == Library ? library : 0);
        return library;
    }

    [LibraryImport(Library, EntryPoint = "cblas_sgemm")]
    private static partial void Sgemm(int order, int transposeA, int transposeB, int m, int n, int k, float alpha, float* a, int lda, float* b, int ldb, float beta, float* c, int ldc);

    [LibraryImport(Library, EntryPoint = "openblas_set_num_threads")]
    private static partial void SetThreads(int count);

    [LibraryImport(Library, EntryPoint = "openblas_get_config")]
    private static partial byte* GetConfig();

    [LibraryImport(Library, EntryPoint = "openblas_get_corename")]
    private static partial byte* GetCoreName();
}
