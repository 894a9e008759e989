using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace ZEngine.Emulator.Execution;

/// <summary>ldmatrix and mma.</summary>
internal static unsafe class MatrixOps
{
    // ---- ldmatrix: lanes 8q..8q+7 give the rows of matrix q; lane l receives elements 2(l mod 4), +1 of row l / 4 --------------------------

    [MethodImpl(MethodImplOptions.AggressiveOptimization), SkipLocalsInit]
    public static void LoadMatrix(Warp w, Instruction* i, uint mask)
    {
        uint* offsets = stackalloc uint[32];
        int matrices = i->Count;
        for (int lane = 0; lane < 8 * matrices; lane++)
        {
            uint offset = (uint)MemoryFlags.Address(w.Registers, i, lane) - Block.SharedBase;
            if (offset + 16ul > w.SharedBytes || (offset & 15) != 0) SharedMemory.Check(w, i, lane, offset, 16, 16);
            offsets[lane] = offset;
            if (w.ChecksUninitialised) SharedMemory.CheckWritten(w, i, lane, offset, 16);
        }
        // Every element goes to the lane that receives it; for the race detector the lane that named the row stands for the read.
        uint rows = matrices == 4 ? uint.MaxValue : (1u << (8 * matrices)) - 1;
        if (w.ChecksSharedRaces) w.Block.Shadow!.ReadWords(w, i, rows, offsets, 16);
        if (w.Profile != null) SharedMemory.CountBanks(ref w.Profile[i->Index], offsets, rows, 16);
        bool isTransposed = i->Flags >> 8 != 0;
        ushort* rowsOf = stackalloc ushort[64];
        for (int q = 0; q < matrices; q++)
        {
            byte* d = w.Registers + i->X[q];
            if (!isTransposed)
            {
                for (int row = 0; row < 8; row++) Vector128.Store(Vector128.Load(w.Shared + offsets[8 * q + row]), d + 16 * row);
                continue;
            }
            for (int row = 0; row < 8; row++) Vector128.Store(Vector128.Load((ushort*)(w.Shared + offsets[8 * q + row])), rowsOf + 8 * row);
            var to = (ushort*)d;
            for (int row = 0; row < 8; row++)
                for (int column = 0; column < 8; column++) to[8 * row + column] = rowsOf[8 * column + row];
        }
    }

    // ---- mma.m16n8kK: D = A B + C --------------------------------------------------------------------------------------------------------
    // Lane l is group g = l / 4, t = l mod 4. C and D hold rows g and g + 8, columns 2t and 2t + 1.
    // 16-bit A, per 8 columns of k: registers hold (g, 2t..), (g + 8, 2t..); B holds (k = 2t.., column g).

    public const int Bf16 = 0, F16 = 1, Tf32 = 2, S8 = 3, U8 = 4;
    /// <summary>Flags: type of A, type of B, K, and whether C and D are packed halves.</summary>
    public const int TypeBShift = 4, KShift = 8, HalfAccumulator = 1 << 16, Saturate = 1 << 17;

    /// <summary>X[0..3] D, X[4..7] A, X[8..9] B, X[10..13] C.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization), SkipLocalsInit]
    public static void Multiply(Warp w, Instruction* i, uint mask)
    {
        int type = i->Flags & 15, k = i->Flags >> KShift & 255;
        if (type >= S8)
        {
            MultiplyIntegers(w, i, k);
            return;
        }
        float* a = stackalloc float[16 * 16], b = stackalloc float[16 * 8], c = stackalloc float[16 * 8];
        byte* r = w.Registers;
        if (type == Tf32)
        {
            GatherTf32(r, i, k, a, b);
        }
        else
        {
            GatherHalves(r, i, k, type, a, b);
        }
        bool isHalf = (i->Flags & HalfAccumulator) != 0;
        if (isHalf) GatherHalfAccumulator(r, i, c);
        else for (int lane = 0; lane < 32; lane++)
        {
            float* row = c + (lane >> 2) * 8 + (lane & 3) * 2;
            row[0] = ((float*)(r + i->X[10]))[lane];
            row[1] = ((float*)(r + i->X[11]))[lane];
            row[64] = ((float*)(r + i->X[12]))[lane];
            row[65] = ((float*)(r + i->X[13]))[lane];
        }
        switch (w.Launch.Options.Mma)
        {
            case MmaModel.Chain: Chain(a, b, c, k); break;
            case MmaModel.Exact: MatrixModels.Exact(a, b, c, k); break;
            case MmaModel.Ampere: MatrixModels.Aligned(a, b, c, k, block: type == Tf32 ? 4 : 8, fraction: 24); break;
            default: MatrixModels.Aligned(a, b, c, k, block: 16, fraction: 25); break;
        }
        if (isHalf) ScatterHalfAccumulator(r, i, c);
        else for (int lane = 0; lane < 32; lane++)
        {
            float* row = c + (lane >> 2) * 8 + (lane & 3) * 2;
            ((float*)(r + i->X[0]))[lane] = row[0];
            ((float*)(r + i->X[1]))[lane] = row[1];
            ((float*)(r + i->X[2]))[lane] = row[64];
            ((float*)(r + i->X[3]))[lane] = row[65];
        }
    }

    // A is 16 x k in rows of 16, B is k x 8.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void GatherHalves(byte* r, Instruction* i, int k, int type, float* a, float* b)
    {
        for (int half = 0; half < k / 8; half++)
        {
            uint* low = (uint*)(r + i->X[4 + 2 * half]), high = (uint*)(r + i->X[5 + 2 * half]), column = (uint*)(r + i->X[8 + half]);
            for (int lane = 0; lane < 32; lane++)
            {
                int g = lane >> 2, t = 8 * half + (lane & 3) * 2;
                Widen(type, low[lane], a + g * 16 + t, 1);
                Widen(type, high[lane], a + (g + 8) * 16 + t, 1);
                Widen(type, column[lane], b + t * 8 + g, 8);
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Widen(int type, uint pair, float* to, int stride)
    {
        if (type == Bf16)
        {
            *(uint*)to = pair << 16;
            *(uint*)(to + stride) = pair & 0xFFFF0000;
        }
        else
        {
            *to = (float)BitConverter.UInt16BitsToHalf((ushort)pair);
            to[stride] = (float)BitConverter.UInt16BitsToHalf((ushort)(pair >> 16));
        }
    }

    // tf32: A holds (g, t), (g + 8, t), and for k = 8 (g, t + 4), (g + 8, t + 4); B holds (t, g) and (t + 4, g). Low 13 bits are ignored.
    private static void GatherTf32(byte* r, Instruction* i, int k, float* a, float* b)
    {
        for (int half = 0; half < k / 4; half++)
        {
            uint* low = (uint*)(r + i->X[4 + 2 * half]), high = (uint*)(r + i->X[5 + 2 * half]), column = (uint*)(r + i->X[8 + half]);
            for (int lane = 0; lane < 32; lane++)
            {
                int g = lane >> 2, t = 4 * half + (lane & 3);
                *(uint*)(a + g * 16 + t) = low[lane] & 0xFFFFE000;
                *(uint*)(a + (g + 8) * 16 + t) = high[lane] & 0xFFFFE000;
                *(uint*)(b + t * 8 + g) = column[lane] & 0xFFFFE000;
            }
        }
    }

    private static void GatherHalfAccumulator(byte* r, Instruction* i, float* c)
    {
        for (int lane = 0; lane < 32; lane++)
        {
            float* row = c + (lane >> 2) * 8 + (lane & 3) * 2;
            Widen(F16, ((uint*)(r + i->X[10]))[lane], row, 1);
            Widen(F16, ((uint*)(r + i->X[11]))[lane], row + 64, 1);
        }
    }

    private static void ScatterHalfAccumulator(byte* r, Instruction* i, float* c)
    {
        for (int lane = 0; lane < 32; lane++)
        {
            float* row = c + (lane >> 2) * 8 + (lane & 3) * 2;
            ((uint*)(r + i->X[0]))[lane] = Float16.FromDouble(row[0]) | (uint)Float16.FromDouble(row[1]) << 16;
            ((uint*)(r + i->X[1]))[lane] = Float16.FromDouble(row[64]) | (uint)Float16.FromDouble(row[65]) << 16;
        }
    }

    // Four rows at a time, eight columns in a vector, k ascending, one rounding per product.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Chain(float* a, float* b, float* c, int k)
    {
        for (int row = 0; row < 16; row += 4)
        {
            Vector256<float> c0 = Vector256.Load(c + row * 8), c1 = Vector256.Load(c + row * 8 + 8), c2 = Vector256.Load(c + row * 8 + 16), c3 = Vector256.Load(c + row * 8 + 24);
            float* ar = a + row * 16;
            for (int n = 0; n < k; n++)
            {
                Vector256<float> bn = Vector256.Load(b + n * 8);
                c0 = Vector256.FusedMultiplyAdd(Vector256.Create(ar[n]), bn, c0);
                c1 = Vector256.FusedMultiplyAdd(Vector256.Create(ar[16 + n]), bn, c1);
                c2 = Vector256.FusedMultiplyAdd(Vector256.Create(ar[32 + n]), bn, c2);
                c3 = Vector256.FusedMultiplyAdd(Vector256.Create(ar[48 + n]), bn, c3);
            }
            Vector256.Store(Canonical(c0), c + row * 8);
            Vector256.Store(Canonical(c1), c + row * 8 + 8);
            Vector256.Store(Canonical(c2), c + row * 8 + 16);
            Vector256.Store(Canonical(c3), c + row * 8 + 24);
        }
    }

    private static Vector256<float> Canonical(Vector256<float> x) =>
        Vector256.ConditionalSelect(Vector256.Equals(x, x), x, Vector256.Create(0x7FFFFFFFu).AsSingle());

    // 8-bit A, per 16 columns of k: (g, 4t..), (g + 8, 4t..); B (4t.., g). Sums are exact in 32 bits, and wrap unless .satfinite.
    private static void MultiplyIntegers(Warp w, Instruction* i, int k)
    {
        byte* r = w.Registers;
        bool signedA = (i->Flags & 15) == S8, signedB = (i->Flags >> TypeBShift & 15) == S8;
        int* a = stackalloc int[16 * 32], b = stackalloc int[32 * 8];
        for (int half = 0; half < k / 16; half++)
        {
            uint* low = (uint*)(r + i->X[4 + 2 * half]), high = (uint*)(r + i->X[5 + 2 * half]), column = (uint*)(r + i->X[8 + half]);
            for (int lane = 0; lane < 32; lane++)
            {
                int g = lane >> 2, t = 16 * half + (lane & 3) * 4;
                for (int e = 0; e < 4; e++)
                {
                    a[g * 32 + t + e] = Byte(low[lane] >> (8 * e), signedA);
                    a[(g + 8) * 32 + t + e] = Byte(high[lane] >> (8 * e), signedA);
                    b[(t + e) * 8 + g] = Byte(column[lane] >> (8 * e), signedB);
                }
            }
        }
        bool saturates = (i->Flags & Saturate) != 0;
        for (int lane = 0; lane < 32; lane++)
        {
            for (int e = 0; e < 4; e++)
            {
                int row = (lane >> 2) + 8 * (e >> 1), column = (lane & 3) * 2 + (e & 1);
                long sum = ((int*)(r + i->X[10 + e]))[lane];
                for (int n = 0; n < k; n++) sum += (long)a[row * 32 + n] * b[n * 8 + column];
                ((int*)(r + i->X[e]))[lane] = saturates ? (int)Math.Clamp(sum, int.MinValue, int.MaxValue) : (int)sum;
            }
        }
    }

    private static int Byte(uint value, bool isSigned) => isSigned ? (sbyte)value : (byte)value;
}

/// <summary>Other ways in which a tensor core may round its sums.</summary>
internal static unsafe class MatrixModels
{
    public static void Exact(float* a, float* b, float* c, int k)
    {
        for (int row = 0; row < 16; row++)
        {
            for (int column = 0; column < 8; column++)
            {
                // Products of 11-bit significands are exact in double; the running error makes up for the rest.
                double sum = c[row * 8 + column], error = 0;
                for (int n = 0; n < k; n++)
                {
                    (sum, double e) = Directed.TwoSum(sum, (double)a[row * 16 + n] * b[n * 8 + column]);
                    error += e;
                }
                c[row * 8 + column] = Floats.Canonical(double.IsFinite(sum) ? (float)Directed.ToOdd(sum, error) : (float)sum);
            }
        }
    }

    /// <summary>
    /// Products of a block and the accumulator are aligned to the largest exponent, truncated to <paramref name="fraction"/> fractional
    /// bits, summed, and truncated to float (arXiv 2511.10909, 2512.07004). Subnormal operands take part with their value.
    /// </summary>
    public static void Aligned(float* a, float* b, float* c, int k, int block, int fraction)
    {
        for (int row = 0; row < 16; row++)
        {
            for (int column = 0; column < 8; column++)
            {
                float sum = c[row * 8 + column];
                for (int start = 0; start < k; start += block) sum = AlignedSum(a + row * 16 + start, b + start * 8 + column, sum, Math.Min(block, k - start), fraction);
                c[row * 8 + column] = sum;
            }
        }
    }

    private static float AlignedSum(float* a, float* b, float c, int n, int fraction)
    {
        double largest = Math.Abs((double)c);
        double plain = c;
        for (int k = 0; k < n; k++)
        {
            double product = (double)a[k] * b[8 * k];
            plain += product;
            largest = Math.Max(largest, Math.Abs(product));
        }
        if (!double.IsFinite(plain) || largest == 0) return Floats.Canonical((float)plain);
        int exponent = Math.ILogB(largest);
        Int128 sum = Truncated(c, exponent, fraction);
        for (int k = 0; k < n; k++) sum += Truncated((double)a[k] * b[8 * k], exponent, fraction);
        return Directed.ToSingle(Math.ScaleB((double)sum, exponent - fraction), Rounding.Zero);
    }

    private static Int128 Truncated(double value, int exponent, int fraction) => (Int128)Math.Truncate(Math.ScaleB(value, fraction - exponent));
}
