using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace ZEngine;

/// <summary>A matrix in memory: element (row, column) stands at row · RowStride + column · ColumnStride.</summary>
internal readonly unsafe struct CpuMatrix(void* data, DType dtype, long rowStride, long columnStride)
{
    public void* Data { get; } = data;
    public DType DType { get; } = dtype;
    public long RowStride { get; } = rowStride;
    public long ColumnStride { get; } = columnStride;

    public CpuMatrix(float* data, long rowStride, long columnStride) : this(data, DType.Float32, rowStride, columnStride) { }

    public CpuMatrix Transposed => new(Data, DType, ColumnStride, RowStride);
}

/// <summary>Matrix multiplication: packed panels, cache blocks and register tiles (Goto and van de Geijn 2008, Anatomy of high-performance matrix multiplication).</summary>
/// <remarks>Every element of C is summed in the same order whatever the number of threads: k runs in blocks of <see cref="BlockK"/>, in order within a block.</remarks>
internal static unsafe partial class CpuGemm
{
    private const int BlockK = 256;                            // a packed panel of B, 256 · 32 floats, stays in a 48 KiB L1
    private const int BlockM = 3072, BlockN = 3072;            // packed blocks of A and B, 3 MiB each, stay in L3
    private const int TaskRows = 96, TaskColumns = 256;        // one piece of parallel work: 96 · 256 floats of packed A stay in L2

    public static int TileRows => Vector512.IsHardwareAccelerated || !Vector256.IsHardwareAccelerated ? 12 : 6;

    public static int TileColumns => 2 * CpuSimd.Width;

    /// <summary>C = A·B (+ bias per column), or C += A·B, on all threads.</summary>
    /// <param name="m">Rows of A and C.</param>
    /// <param name="n">Columns of B and C.</param>
    /// <param name="k">Columns of A, rows of B.</param>
    /// <param name="a">[m, k], Float32.</param>
    /// <param name="b">[k, n], of any floating-point type.</param>
    /// <param name="c">[m, n], rows dense.</param>
    /// <param name="rowStride">Floats from one row of C to the next.</param>
    /// <param name="bias">[n] or null.</param>
    /// <param name="isAdding">Whether C already holds a summand.</param>
    public static void Multiply(long m, long n, long k, CpuMatrix a, CpuMatrix b, float* c, long rowStride, float* bias = null, bool isAdding = false)
    {
        if (m == 0 || n == 0) return;
        if (k == 0)
        {
            FillRows(m, n, c, rowStride, bias, isAdding);
            return;
        }
        if (m <= CpuRowDots.MaxRows && b.RowStride == 1 && a.ColumnStride == 1)
        {
            CpuRowDots.Multiply(m, n, k, (float*)a.Data, a.RowStride, b.Transposed, c, rowStride, bias, isAdding);
            return;
        }
        long rows = RoundUp(Math.Min(m, BlockM), TileRows), columns = RoundUp(Math.Min(n, BlockN), TileColumns), depth = Math.Min(k, BlockK);
        using var packed = new CpuScratch((rows + columns) * depth);
        float* packedA = packed.Data, packedB = packedA + rows * depth;
        for (long n0 = 0; n0 < n; n0 += BlockN)
        for (long m0 = 0; m0 < m; m0 += BlockM)
        for (long k0 = 0; k0 < k; k0 += BlockK)
        {
            long blockM = Math.Min(BlockM, m - m0), blockN = Math.Min(BlockN, n - n0), blockK = Math.Min(BlockK, k - k0);
            var pack = new PackJob(a, b, m0, n0, k0, blockM, blockN, blockK, packedA, packedB);
            CpuThreads.For(pack.Panels, 4, pack);
            var tiles = new TileJob(packedA, packedB, blockM, blockN, blockK, c + m0 * rowStride + n0, rowStride, k0 == 0 && bias != null ? bias + n0 : null, isAdding || k0 > 0);
            CpuThreads.For(tiles.Tasks, 1, tiles);
        }
    }

    private static long RoundUp(long value, long multiple) => (value + multiple - 1) / multiple * multiple;

    private static void FillRows(long m, long n, float* c, long rowStride, float* bias, bool isAdding)
    {
        if (isAdding) return;
        for (long i = 0; i < m; i++)
        for (long j = 0; j < n; j++) c[i * rowStride + j] = bias != null ? bias[j] : 0;
    }

    /// <summary>Copies A into panels of <see cref="TileRows"/> rows and B into panels of <see cref="TileColumns"/> columns, k-major, padded with zeros.</summary>
    private readonly struct PackJob(CpuMatrix a, CpuMatrix b, long m0, long n0, long k0, long m, long n, long k, float* packedA, float* packedB) : IParallelJob
    {
        private readonly long _panelsA = (m + TileRows - 1) / TileRows;

        public long Panels => _panelsA + (n + TileColumns - 1) / TileColumns;

        public void Run(long begin, long end)
        {
            for (long panel = begin; panel < end; panel++)
            {
                if (panel < _panelsA)
                {
                    long row = panel * TileRows;
                    CpuPack.Panel(a.Transposed, k0, m0 + row, k, Math.Min(TileRows, m - row), TileRows, packedA + row * k);
                }
                else
                {
                    long column = (panel - _panelsA) * TileColumns;
                    CpuPack.Panel(b, k0, n0 + column, k, Math.Min(TileColumns, n - column), TileColumns, packedB + column * k);
                }
            }
        }
    }

    /// <summary>Multiplies packed blocks, one task of <see cref="TaskRows"/> by <see cref="TaskColumns"/> after the other.</summary>
    private readonly struct TileJob(float* packedA, float* packedB, long m, long n, long k, float* c, long rowStride, float* bias, bool isAdding) : IParallelJob
    {
        private readonly long _tasksAcross = (n + TaskColumns - 1) / TaskColumns;

        public long Tasks => _tasksAcross * ((m + TaskRows - 1) / TaskRows);

        public void Run(long begin, long end)
        {
            for (long task = begin; task < end; task++)
            {
                long row = task / _tasksAcross * TaskRows, column = task % _tasksAcross * TaskColumns;
                if (Vector512.IsHardwareAccelerated) RunTask<Floats16>(row, column);
                else if (Vector256.IsHardwareAccelerated) RunTask<Floats8>(row, column);
                else RunTask<Floats4>(row, column);
            }
        }

        private void RunTask<T>(long row, long column) where T : struct, IFloats<T>
        {
            long lastRow = Math.Min(m, row + TaskRows), lastColumn = Math.Min(n, column + TaskColumns);
            for (long j = column; j < lastColumn; j += TileColumns)
            for (long i = row; i < lastRow; i += TileRows)
                Tile<T>(i, j, Math.Min(TileRows, lastRow - i), Math.Min(TileColumns, lastColumn - j));
        }

        private void Tile<T>(long i, long j, long rows, long columns) where T : struct, IFloats<T>
        {
            float* a = packedA + i * k, b = packedB + j * k, target = c + i * rowStride + j;
            if (rows == TileRows && columns == TileColumns)
            {
                RegisterTile<T>(k, a, b, target, rowStride, bias != null ? bias + j : null, isAdding);
                return;
            }
            // An edge: a whole tile into a buffer, then the part that exists.
            float* edge = stackalloc float[12 * 32], edgeBias = stackalloc float[32];
            if (bias != null) for (long x = 0; x < columns; x++) edgeBias[x] = bias[j + x];
            RegisterTile<T>(k, a, b, edge, TileColumns, bias != null ? edgeBias : null, false);
            for (long y = 0; y < rows; y++)
            for (long x = 0; x < columns; x += T.Width)
            {
                T value = T.Load(edge + y * TileColumns + x);
                float* at = target + y * rowStride + x;
                if (isAdding) value = T.LoadUpTo(at, columns - x) + value;
                value.StoreUpTo(at, columns - x);
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void RegisterTile<T>(long k, float* a, float* b, float* c, long rowStride, float* bias, bool isAdding) where T : struct, IFloats<T>
    {
        if (TileRows == 12) Tile12<T>(k, a, b, c, rowStride, bias, isAdding);
        else Tile6<T>(k, a, b, c, rowStride, bias, isAdding);
    }
}

/// <summary>Native scratch memory of one op call, from the CPU device's pool.</summary>
internal readonly unsafe ref struct CpuScratch : IDisposable
{
    private readonly Storage _storage;

    public CpuScratch(long floats) => _storage = Device.Cpu.Allocate(floats * sizeof(float));

    public float* Data => (float*)_storage.Address;

    public void Dispose() => _storage.RemoveView();
}
