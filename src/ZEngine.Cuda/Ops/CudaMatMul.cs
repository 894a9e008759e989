using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string MatMulFile = "MatMul.cu";

    /// <summary>Mirrors MatMulArgs in kernels/MatMul.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct MatMulArgs
    {
        public ulong A, B, Bias, Y;
        public long ARow, BRow, ANext, BNext, YNext;
        public int M, N, K, TransposeA, TransposeB, IsAdding, AIsWide, BIsWide, YIsWide, BType;
    }

    internal override void MatMul(MatMulInputs x, Tensor y, bool isAdding)
    {
        MatMulArgs args = Arguments(x, y, isAdding, out long products);
        if (y.Count == 0) return;
        MatMulPlan plan = MatMulPlan.For(args.M, args.N, products, y.DType, x.B.DType, x.TransposeA, x.TransposeB, device.Multiprocessors, device.Options.AllowsTf32);
        CudaKernel kernel = plan.Method switch
        {
            MatMulMethod.Rows => Kernel(MatMulFile, $"matmul_rows<{y.DType}, {x.B.DType}, {plan.Tile}>"),
            MatMulMethod.Half => Kernel(MatMulFile, $"matmul_half<{y.DType}, {x.TransposeA}, {x.TransposeB}, {plan.Tile}>"),
            _ => Kernel(MatMulFile, $"matmul_float<{x.B.DType}, {plan.Tile}, {plan.IsTf32}>"),
        };
        kernel.Launch(Blocks("MatMul", plan.Blocks(args.M, args.N, products)), plan.Threads, plan.SharedBytes, args);
    }

    private static MatMulArgs Arguments(MatMulInputs x, Tensor y, bool isAdding, out long products)
    {
        (Tensor a, Tensor b) = (x.A, x.B);
        (long rows, long inner) = x.TransposeA ? (a.Shape[^1], a.Shape[^2]) : (a.Shape[^2], a.Shape[^1]);
        long columns = y.Shape[^1];
        products = 1;
        for (int axis = 0; axis < a.Rank - 2; axis++) products *= a.Shape[axis];
        return new MatMulArgs
        {
            A = Pointer(a), B = Pointer(b), Bias = Pointer(x.Bias), Y = Pointer(y),
            ARow = a.RowStride(), BRow = b.RowStride(), ANext = a.RowStride() * a.Shape[^2], BNext = b.RowStride() * b.Shape[^2], YNext = rows * columns,
            M = Size32("MatMul", "rows", rows), N = Size32("MatMul", "columns", columns), K = Size32("MatMul", "inner", inner),
            TransposeA = x.TransposeA ? 1 : 0, TransposeB = x.TransposeB ? 1 : 0, IsAdding = isAdding ? 1 : 0,
            // Rows may be read 16 bytes at a time where they begin at multiples of that; what hangs over their end is cut off.
            AIsWide = AreRowsAligned(a) ? 1 : 0, BIsWide = AreRowsAligned(b) && (y.DType == DType.Float32 || b.DType == y.DType) ? 1 : 0,
            YIsWide = y.Address % WideBytes == 0 && columns * y.DType.Size % WideBytes == 0 ? 1 : 0, BType = (int)b.DType,
        };
    }

    private static bool AreRowsAligned(Tensor tensor) => tensor.Address % WideBytes == 0 && tensor.RowStride() * tensor.DType.Size % WideBytes == 0;
}

/// <summary>Which kernel of kernels/MatMul.cu multiplies.</summary>
internal enum MatMulMethod
{
    /// <summary>16-bit operands on the tensor cores.</summary>
    Half,
    /// <summary>Float operands.</summary>
    Float,
    /// <summary>Few rows, bound by reading b.</summary>
    Rows,
}

/// <summary>Kernel and tile of a matrix product: a pure function of its sizes and of the device.</summary>
/// <param name="Method">The kernel.</param>
/// <param name="Tile">Rows and columns of y that a block owns; for <see cref="MatMulMethod.Rows"/> the rows that it can hold.</param>
/// <param name="IsTf32">Whether float operands are rounded for the tensor cores.</param>
internal readonly record struct MatMulPlan(MatMulMethod Method, int Tile, bool IsTf32)
{
    private const int MostRows = 8, RowsColumnsOfBlock = 32, Stages = 3, SliceBytes = 32 * 2;

    public int Threads => Method == MatMulMethod.Half ? 2 * Tile : 256;

    /// <summary>Slices of both operands; the tile of y, with 8 elements more to a row, fits into them for 128 and not quite for 64.</summary>
    public int SharedBytes => Method == MatMulMethod.Half ? Math.Max(Stages * 2 * Tile * SliceBytes, Tile * (Tile + 8) * 2) : 0;

    public static MatMulPlan For(long rows, long columns, long products, DType a, DType b, bool transposeA, bool transposeB, int multiprocessors, bool allowsTf32)
    {
        if (rows <= MostRows && products == 1 && !transposeA && transposeB && (a == b || a == DType.Float32 || b == DType.Float32))
            return new(MatMulMethod.Rows, rows == 1 ? 1 : MostRows, false);
        // The large tile reads its operands half as often; the small one fills the device where there is little to do.
        long large = products * ((rows + 127) / 128) * ((columns + 127) / 128);
        int tile = large >= multiprocessors ? 128 : 64;
        return a == DType.Float32 ? new(MatMulMethod.Float, tile, allowsTf32) : new(MatMulMethod.Half, tile, false);
    }

    public long Blocks(long rows, long columns, long products) => Method == MatMulMethod.Rows
        ? (columns + RowsColumnsOfBlock - 1) / RowsColumnsOfBlock
        : products * ((rows + Tile - 1) / Tile) * ((columns + Tile - 1) / Tile);
}
