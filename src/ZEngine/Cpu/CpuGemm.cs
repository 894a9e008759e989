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
    private const int TaskRows = 96, TaskColumns = 256;        // one piece of parallel work, at most: 96 · 256 floats of packed A stay in L2
    private const int TasksPerThread = 4;                      // so that no thread waits long for the last one
    private const int FewRows = 2 * TaskRows;                  // up to so many, packing B ahead of the tiles costs a trip to memory for little reuse

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
        bool hasFewRows = m <= FewRows;
        long rows = RoundUp(Math.Min(m, BlockM), TileRows), columns = hasFewRows ? 0 : RoundUp(Math.Min(n, BlockN), TileColumns), depth = BalancedDepth(k);
        using var packed = new CpuScratch((rows + columns) * depth);
        float* packedA = packed.Data, packedB = packedA + rows * depth;
        for (long n0 = 0; n0 < n; n0 += BlockN)
        for (long m0 = 0; m0 < m; m0 += BlockM)
        for (long k0 = 0; k0 < k; k0 += depth)
        {
            long blockM = Math.Min(BlockM, m - m0), blockN = Math.Min(BlockN, n - n0), blockK = Math.Min(depth, k - k0);
            var pack = new PackJob(a, b, m0, n0, k0, blockM, blockN, blockK, packedA, packedB);
            CpuThreads.For(hasFewRows ? pack.PanelsOfA : pack.Count, 4, pack);
            var tiles = new TileJob(packedA, packedB, hasFewRows ? pack : null, blockM, blockN, blockK, c + m0 * rowStride + n0, rowStride, k0 == 0 && bias != null ? bias + n0 : null, isAdding || k0 > 0);
            CpuThreads.For(tiles.Tasks, 1, tiles);
        }
    }

    private static long RoundUp(long value, long multiple) => (value + multiple - 1) / multiple * multiple;

    /// <summary>k in as few blocks as fit, of about the same depth.</summary>
    private static long BalancedDepth(long k)
    {
        long blocks = (k + BlockK - 1) / BlockK;
        return (k + blocks - 1) / blocks;
    }

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

        public long PanelsOfA => _panelsA;

        public long Count => _panelsA + (n + TileColumns - 1) / TileColumns;

        public void Run(long begin, long end)
        {
            if (Vector512.IsHardwareAccelerated) Panels<Floats16>(begin, end);
            else if (Vector256.IsHardwareAccelerated) Panels<Floats8>(begin, end);
            else Panels<Floats4>(begin, end);
        }

        private void Panels<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long panel = begin; panel < end; panel++)
            {
                if (panel < _panelsA)
                {
                    long row = panel * TileRows;
                    CpuPack.Panel<T>(a.Transposed, k0, m0 + row, k, Math.Min(TileRows, m - row), TileRows, packedA + row * k);
                }
                else
                {
                    long column = (panel - _panelsA) * TileColumns;
                    PanelOfB<T>(column, packedB + column * k);
                }
            }
        }

        public void PanelOfB<T>(long column, float* to) where T : struct, IFloats<T> =>
            CpuPack.Panel<T>(b, k0, n0 + column, k, Math.Min(TileColumns, n - column), TileColumns, to);
    }

    /// <summary>Multiplies packed blocks, one task of some rows by some columns after the other. A tile's bits do not depend on its task.</summary>
    private readonly struct TileJob : IParallelJob
    {
        private readonly float* _a, _b, _c, _bias;
        private readonly long _m, _n, _k, _rowStride, _taskRows, _taskColumns, _tasksAcross;
        private readonly bool _isAdding;
        private readonly PackJob? _pack;

        /// <param name="pack">Packs a panel of B when it is needed; null where <paramref name="packedB"/> holds all of them.</param>
        public TileJob(float* packedA, float* packedB, PackJob? pack, long m, long n, long k, float* c, long rowStride, float* bias, bool isAdding)
        {
            _a = packedA;
            _b = packedB;
            _c = c;
            _bias = bias;
            (_pack, _m, _n, _k, _rowStride, _isAdding) = (pack, m, n, k, rowStride, isAdding);
            (_taskRows, _taskColumns) = (pack is null ? TaskRows : RoundUp(m, TileRows), TaskColumns);
            while (CpuThreads.Count > 1 && Tasks < TasksPerThread * CpuThreads.Count && _taskColumns > TileColumns)
            {
                if (pack is null && _taskRows > 2 * TileRows && _taskRows > m / 4) _taskRows /= 2;
                else _taskColumns /= 2;
            }
            _tasksAcross = (n + _taskColumns - 1) / _taskColumns;
        }

        public long Tasks => (_n + _taskColumns - 1) / _taskColumns * ((_m + _taskRows - 1) / _taskRows);

        public void Run(long begin, long end)
        {
            if (Vector512.IsHardwareAccelerated) RunTasks<Floats16>(begin, end);
            else if (Vector256.IsHardwareAccelerated) RunTasks<Floats8>(begin, end);
            else RunTasks<Floats4>(begin, end);
        }

        private void RunTasks<T>(long begin, long end) where T : struct, IFloats<T>
        {
            using var panel = new CpuScratch(_pack is null ? 0 : _k * TileColumns);
            for (long task = begin; task < end; task++)
            {
                long row = task / _tasksAcross * _taskRows, column = task % _tasksAcross * _taskColumns;
                long lastRow = Math.Min(_m, row + _taskRows), lastColumn = Math.Min(_n, column + _taskColumns);
                for (long j = column; j < lastColumn; j += TileColumns)
                {
                    float* b = _b + j * _k;
                    if (_pack is { } pack) pack.PanelOfB<T>(j, b = panel.Data);
                    for (long i = row; i < lastRow; i += TileRows) Tile<T>(i, j, b, Math.Min(TileRows, lastRow - i), Math.Min(TileColumns, lastColumn - j));
                }
            }
        }

        private void Tile<T>(long i, long j, float* b, long rows, long columns) where T : struct, IFloats<T>
        {
            float* a = _a + i * _k, target = _c + i * _rowStride + j;
            if (rows == TileRows && columns == TileColumns)
            {
                RegisterTile<T>(_k, a, b, target, _rowStride, _bias != null ? _bias + j : null, _isAdding);
                return;
            }
            // An edge: a whole tile into a buffer, then the part that exists.
            float* edge = stackalloc float[12 * 32], edgeBias = stackalloc float[32];
            if (_bias != null) for (long x = 0; x < columns; x++) edgeBias[x] = _bias[j + x];
            if (rows <= 6) Tile6<T>(_k, a, TileRows, b, edge, TileColumns, _bias != null ? edgeBias : null, false);
            else RegisterTile<T>(_k, a, b, edge, TileColumns, _bias != null ? edgeBias : null, false);
            for (long y = 0; y < rows; y++)
            for (long x = 0; x < columns; x += T.Width)
            {
                T value = T.Load(edge + y * TileColumns + x);
                float* at = target + y * _rowStride + x;
                if (_isAdding) value = T.LoadUpTo(at, columns - x) + value;
                value.StoreUpTo(at, columns - x);
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void RegisterTile<T>(long k, float* a, float* b, float* c, long rowStride, float* bias, bool isAdding) where T : struct, IFloats<T>
    {
        if (TileRows == 12) Tile12<T>(k, a, b, c, rowStride, bias, isAdding);
        else Tile6<T>(k, a, 6, b, c, rowStride, bias, isAdding);
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
