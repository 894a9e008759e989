using System.Runtime.InteropServices;
using ZEngine.Interop;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string MatMulFile = "MatMul.cu";
    private const int NoActivation = -1;

    /// <summary>Mirrors MatMulArgs in kernels/MatMul.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct MatMulArgs
    {
        public ulong A, B, Bias, Y, Kept;
        public long ARow, BRow, YRow, ANext, BNext, YNext, AInner, BInner, YInner;
        public int M, N, K, Inners, BRepeat, TransposeA, TransposeB, IsAdding, AIsWide, BIsWide, YIsWide, YIsFloat, Activation, BiasIsWide;
    }

    internal override void MatMul(MatMulInputs x, Tensor y, bool isAdding)
    {
        // The tensor cores take operands of one 16-bit type whose rows begin at multiples of 16 bytes; others are copied. (Few rows are no work for them.)
        DType type = x.A.DType;
        bool isHalf = type != DType.Float32 && !MatMulPlan.HasFewRows(x, y);
        using Tensor? alignedA = isHalf ? Aligned(x.A, type) : null, alignedB = isHalf ? Aligned(x.B, type) : null;
        (Tensor a, Tensor b) = (alignedA ?? x.A, alignedB ?? x.B);
        (long rows, long inner) = x.TransposeA ? (a.Shape[^1], a.Shape[^2]) : (a.Shape[^2], a.Shape[^1]);
        long columns = y.Shape[^1], products = 1;
        for (int axis = 0; axis < a.Rank - 2; axis++) products *= a.Shape[axis];
        Multiply(new Product(rows, columns, inner, products)
        {
            A = new Operand(a, a.RowStride(), a.RowStride() * a.Shape[^2]), B = new Operand(b, b.RowStride(), b.RowStride() * b.Shape[^2]), Y = new Operand(y, columns, rows * columns),
            TransposeA = x.TransposeA, TransposeB = x.TransposeB, Bias = x.Bias, IsAdding = isAdding, Activation = x.Activation, Kept = x.Kept,
        });
    }

    /// <summary>A copy of another type, or with rows that begin at multiples of 16 bytes; null where the tensor is like that.</summary>
    private Tensor? Aligned(Tensor tensor, DType type)
    {
        int elements = WideElements(type);
        if (tensor.DType == type && tensor.Address % WideBytes == 0 && tensor.RowStride() % elements == 0) return null;
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        Tensor copy = EmptyRows(tensor.Shape, type, tensor.Device);
        Copy(tensor, copy);
        return TensorScope.Release(copy);
    }

    /// <summary>A matrix that is read or written: its rows, the next stack of products, and the next product within a stack, in elements apart.</summary>
    private readonly record struct Operand(Tensor Tensor, long Row, long Next, long Inner = 0, long Offset = 0)
    {
        public ulong Address => (ulong)(Tensor.Address + (nint)(Offset * Tensor.DType.Size));

        /// <summary>Whether rows may be read 16 bytes at a time: they begin at multiples of that. What hangs over their end is cut off.</summary>
        public bool IsWide => Address % WideBytes == 0 && IsMultiple(Row) && IsMultiple(Next) && IsMultiple(Inner);

        private bool IsMultiple(long elements) => elements * Tensor.DType.Size % WideBytes == 0;
    }

    /// <summary>Products of one shape: stacks of <see cref="Inners"/>, of which <see cref="Repeat"/> neighbours share one b.</summary>
    private readonly record struct Product(long Rows, long Columns, long Inner, long Stacks)
    {
        public required Operand A { get; init; }
        public required Operand B { get; init; }
        public required Operand Y { get; init; }
        public bool TransposeA { get; init; }
        public bool TransposeB { get; init; }
        public bool IsAdding { get; init; }
        public Tensor? Bias { get; init; }
        public Pointwise? Activation { get; init; }

        /// <summary>As long as y and as its rows lie.</summary>
        public Tensor? Kept { get; init; }
        public int Inners { get; init; } = 1;
        public int Repeat { get; init; } = 1;
    }

    private void Multiply(in Product x)
    {
        long products = x.Stacks * x.Inners;
        if (products * x.Rows * x.Columns == 0) return;
        bool hasFewRows = products == 1 && !x.TransposeA && x.TransposeB && MatMulPlan.HasFewRows(x.Rows);
        if (!hasFewRows && MultipliesByLibrary(x)) return;
        (DType type, DType bType, DType yType) = (x.A.Tensor.DType, x.B.Tensor.DType, x.Y.Tensor.DType);
        var args = new MatMulArgs
        {
            A = x.A.Address, B = x.B.Address, Bias = Pointer(x.Bias), Y = x.Y.Address, Kept = Pointer(x.Kept),
            ARow = x.A.Row, BRow = x.B.Row, YRow = x.Y.Row, ANext = x.A.Next, BNext = x.B.Next, YNext = x.Y.Next, AInner = x.A.Inner, BInner = x.B.Inner, YInner = x.Y.Inner,
            M = Size32("MatMul", "rows", x.Rows), N = Size32("MatMul", "columns", x.Columns), K = Size32("MatMul", "inner", x.Inner),
            Inners = x.Inners, BRepeat = x.Repeat, TransposeA = x.TransposeA ? 1 : 0, TransposeB = x.TransposeB ? 1 : 0, IsAdding = x.IsAdding ? 1 : 0,
            AIsWide = x.A.IsWide ? 1 : 0, BIsWide = x.B.IsWide ? 1 : 0, YIsWide = x.Y.IsWide && x.Columns * yType.Size % WideBytes == 0 && Pointer(x.Kept) % WideBytes == 0 ? 1 : 0, YIsFloat = yType == DType.Float32 ? 1 : 0,
            Activation = x.Activation is { } function ? (int)function : NoActivation, BiasIsWide = Pointer(x.Bias) % WideBytes == 0 ? 1 : 0,
        };
        MatMulPlan plan = MatMulPlan.For(x.Rows, x.Columns, products, type, hasFewRows, device.Multiprocessors, device.Options.AllowsTf32);
        CudaKernel kernel = plan.Method switch
        {
            MatMulMethod.Rows => Kernel(MatMulFile, $"matmul_rows<{type}, {bType}, {plan.Tile}>"),
            MatMulMethod.Half => Kernel(MatMulFile, $"matmul_half<{type}, {x.TransposeA}, {x.TransposeB}, {plan.Tile}>"),
            _ => Kernel(MatMulFile, $"matmul_float<{bType}, {plan.Tile}, {plan.IsTf32}>"),
        };
        kernel.Launch(Blocks("MatMul", plan.Blocks(x.Rows, x.Columns, products)), plan.Threads, plan.SharedBytes, args);
    }

    /// <summary>Lets cuBLASLt multiply; false where it is not there or does not take such a product.</summary>
    private bool MultipliesByLibrary(in Product x)
    {
        DType type = x.A.Tensor.DType;
        if (!device.Library.IsPresent || x.Inner == 0 || x.B.Tensor.DType != type) return false;
        // It has one level of stacks, and adds a bias in the type of the result, which is not what a Float32 bias of a 16-bit result is.
        if (x.Repeat > 1 || x.Stacks > 1 && x.Inners > 1 || x.Bias is not null && type != DType.Float32) return false;
        if (!TakesActivation(x, type)) return false;
        if (device.Library.Plan(ColumnMajor(x, type)) is not { } plan) return false;
        using Tensor? workspace = plan.WorkspaceBytes == 0 ? null : Tensor.Empty([plan.WorkspaceBytes], DType.UInt8, device);
        device.Enter();
        plan.Run((nint)x.B.Address, (nint)x.A.Address, (nint)Pointer(x.Bias), (nint)Pointer(x.Kept), (nint)x.Y.Address, x.IsAdding, (nint)Pointer(workspace), device.Stream.Value);
        device.Launched("cublasLtMatmul");
        return true;
    }

    /// <summary>
    /// Whether the library's activation is the engine's. Its only Gelu is that by tanh; nothing says how many digits it has, so that a Float32 result takes it only
    /// where TF32 is allowed. Kept rows must be multiples of eight elements.
    /// </summary>
    private bool TakesActivation(in Product x, DType type) => x.Activation switch
    {
        null or Pointwise.Relu => x.Kept is null,
        Pointwise.GeluTanh => (type != DType.Float32 || device.Options.AllowsTf32) && (x.Kept is null || x.Columns % 8 == 0 && Pointer(x.Kept) % CublasLtProduct.KeptAlignment == 0),
        _ => false,
    };

    private static CublasLtEpilogue EpilogueOf(in Product x)
    {
        CublasLtEpilogue bias = x.Bias is null ? default : CublasLtEpilogue.Bias, kept = x.Kept is null ? default : CublasLtEpilogue.Kept;
        return x.Activation switch
        {
            null => x.Bias is null ? CublasLtEpilogue.None : bias,
            Pointwise.Relu => CublasLtEpilogue.Relu | bias,
            _ => CublasLtEpilogue.Gelu | bias | kept,
        };
    }

    /// <summary>The product as the library sees it: rows are columns there, so it computes yᵀ = bᵀ·aᵀ.</summary>
    private CublasLtProduct ColumnMajor(in Product x, DType dtype)
    {
        bool isInner = x.Inners > 1;
        int count = Size32("MatMul", "products", x.Stacks * x.Inners);
        // A single row may lie any distance from the next, which is not there.
        CublasLtLayout Layout(Operand operand, long rows, long columns) => new(TypeOf(operand.Tensor.DType), columns, rows, Math.Max(operand.Row, columns), count, count == 1 ? 0 : isInner ? operand.Inner : operand.Next);
        return new CublasLtProduct(
            x.TransposeB ? Layout(x.B, x.Columns, x.Inner) : Layout(x.B, x.Inner, x.Columns),
            x.TransposeA ? Layout(x.A, x.Inner, x.Rows) : Layout(x.A, x.Rows, x.Inner),
            Layout(x.Y, x.Rows, x.Columns), x.TransposeB, x.TransposeA,
            dtype == DType.Float32 && device.Options.AllowsTf32 ? CublasLtCompute.Tf32 : CublasLtCompute.Float32, EpilogueOf(x),
            Alignment(x.B.Address), Alignment(x.A.Address), Alignment(x.Y.Address));
    }

    private static CublasLtType TypeOf(DType dtype) => dtype == DType.Float32 ? CublasLtType.Float32 : dtype == DType.BFloat16 ? CublasLtType.BFloat16 : CublasLtType.Float16;

    /// <summary>The largest power of two up to 256 of which an address is a multiple.</summary>
    private static int Alignment(ulong address) => (int)Math.Min(256, address & (~address + 1));
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

    /// <summary>Slices of both operands; 64 rows of the tile of y, as floats with 8 more to a row, fit into them.</summary>
    public int SharedBytes => Method == MatMulMethod.Half ? Stages * 2 * Tile * SliceBytes : 0;

    /// <summary>Whether a product with a weight [out, in] is bound by reading the weight.</summary>
    public static bool HasFewRows(long rows) => rows <= MostRows;

    /// <summary>As <see cref="HasFewRows(long)"/>, for whole inputs.</summary>
    public static bool HasFewRows(MatMulInputs x, Tensor y) =>
        y.Count == y.Shape[^2] * y.Shape[^1] && !x.TransposeA && x.TransposeB && HasFewRows(y.Shape[^2]) && (x.B.DType == y.DType || x.B.DType == DType.Float32);

    public static MatMulPlan For(long rows, long columns, long products, DType type, bool hasFewRows, int multiprocessors, bool allowsTf32)
    {
        if (hasFewRows) return new(MatMulMethod.Rows, rows == 1 ? 1 : MostRows, false);
        // The large tile reads its operands half as often; the small one fills the device where there is little to do.
        long large = products * ((rows + 127) / 128) * ((columns + 127) / 128);
        int tile = large >= multiprocessors ? 128 : 64;
        return type == DType.Float32 ? new(MatMulMethod.Float, tile, allowsTf32) : new(MatMulMethod.Half, tile, false);
    }

    public long Blocks(long rows, long columns, long products) => Method == MatMulMethod.Rows
        ? (columns + RowsColumnsOfBlock - 1) / RowsColumnsOfBlock
        : products * ((rows + Tile - 1) / Tile) * ((columns + Tile - 1) / Tile);
}
