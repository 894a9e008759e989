// Types of cublasLt.h and library_types.h, as a library of version 12 or 13 takes them.
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ZEngine.Interop;

/// <summary>Element types: cudaDataType_t.</summary>
public enum CublasLtType
{
    /// <summary>binary32.</summary>
    Float32 = 0,
    /// <summary>binary16.</summary>
    Float16 = 2,
    /// <summary>The upper half of a binary32.</summary>
    BFloat16 = 14,
}

/// <summary>How products are computed: cublasComputeType_t. Sums are binary32 in both.</summary>
public enum CublasLtCompute
{
    /// <summary>Operands as they are.</summary>
    Float32 = 68,
    /// <summary>Operands of binary32 rounded to TF32.</summary>
    Tf32 = 77,
}

/// <summary>What is done to a sum before it is stored: cublasLtEpilogue_t. All but <see cref="None"/> may be joined.</summary>
[Flags]
public enum CublasLtEpilogue
{
    /// <summary>Nothing.</summary>
    None = 1,
    /// <summary>Numbers below 0 become 0.</summary>
    Relu = 2,
    /// <summary>A bias is added first, one number for each row of the result.</summary>
    Bias = 4,
    /// <summary>½x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))</summary>
    Gelu = 32,
    /// <summary>What <see cref="Gelu"/> is given is stored too, in the type of the result.</summary>
    Kept = 128,
}

/// <summary>A matrix in column-major order, or a stack of them.</summary>
/// <param name="Type">Of the elements.</param>
/// <param name="Rows">Of each matrix.</param>
/// <param name="Columns">Of each matrix.</param>
/// <param name="Leading">Elements from one column to the next.</param>
/// <param name="Count">How many matrices.</param>
/// <param name="Next">Elements from one matrix to the next.</param>
public readonly record struct CublasLtLayout(CublasLtType Type, long Rows, long Columns, long Leading, int Count = 1, long Next = 0);

/// <summary>A product D = f(op(A)·op(B) (+ bias)), or D += the same; column-major, every sum in binary32.</summary>
/// <param name="A">The left operand as it is stored.</param>
/// <param name="B">The right operand as it is stored.</param>
/// <param name="D">The result.</param>
/// <param name="TransposeA">Whether A is stored transposed.</param>
/// <param name="TransposeB">Whether B is stored transposed.</param>
/// <param name="Compute">How products are computed.</param>
/// <param name="Epilogue">What is done to a sum before it is stored.</param>
/// <param name="AlignmentA">A power of two up to 256 of which the address of A is a multiple.</param>
/// <param name="AlignmentB">The same of B.</param>
/// <param name="AlignmentD">The same of D.</param>
public readonly record struct CublasLtProduct(
    CublasLtLayout A, CublasLtLayout B, CublasLtLayout D, bool TransposeA, bool TransposeB, CublasLtCompute Compute = CublasLtCompute.Float32, CublasLtEpilogue Epilogue = CublasLtEpilogue.None,
    int AlignmentA = 256, int AlignmentB = 256, int AlignmentD = 256)
{
    /// <summary>Of what the address of a kept matrix must be a multiple.</summary>
    public const int KeptAlignment = 16;
}

/// <summary>A way to compute a product: cublasLtMatmulAlgo_t, of which nothing but the size is public.</summary>
[InlineArray(8)]
internal struct CublasLtAlgorithm
{
    private ulong _first;
}

/// <summary>cublasLtMatmulHeuristicResult_t.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct CublasLtHeuristic
{
    public CublasLtAlgorithm Algorithm;
    public nuint WorkspaceBytes;
    public int State;
    public float Waves;
    public long Reserved0, Reserved1;
}
