using System.Numerics;
using System.Runtime.InteropServices;

namespace ZEngine.Distributed;

/// <summary>Reduces the contributions of several ranks, element by element, in an order that depends on their number alone.</summary>
/// <remarks>
/// Contributions 0 to n - 1 are parted at the largest power of two below n, both parts are reduced, then joined: pairwise sums, whose
/// rounding grows with log n. Where each rank has summed 2^k shards so before, the whole is the same tree for any number of ranks.
/// Floats of any type are joined in Float32 and rounded once; integers in 64 bits, and a result that does not fit is an error.
/// </remarks>
public static unsafe class OrderedReduction
{
    private const int Block = 512;                             // elements of all levels of the tree stay in the L1 cache

    /// <summary>Where <c>[0, count)</c> is parted: the largest power of two below <paramref name="count"/>.</summary>
    public static int Middle(int count) => 1 << (31 - BitOperations.LeadingZeroCount((uint)count - 1));

    /// <summary>Writes the reduction of all contributions.</summary>
    /// <param name="dtype">Of every element.</param>
    /// <param name="operation">How two become one.</param>
    /// <param name="contributions">First elements, in the order of the ranks.</param>
    /// <param name="result">May be one of the contributions.</param>
    /// <param name="count">Elements of each.</param>
    public static void Reduce(DType dtype, ReduceOperation operation, ReadOnlySpan<nint> contributions, nint result, long count)
    {
        switch (dtype)
        {
            case DType.Float32: Reduce<float, float, Floats>(operation, contributions, result, count); break;
            case DType.BFloat16: Reduce<BFloat16, float, Floats>(operation, contributions, result, count); break;
            case DType.Float16: Reduce<Half, float, Floats>(operation, contributions, result, count); break;
            case DType.Int32: Reduce<int, long, Integers>(operation, contributions, result, count); break;
            case DType.Int64: Reduce<long, long, Integers>(operation, contributions, result, count); break;
            case DType.UInt8: Reduce<byte, long, Integers>(operation, contributions, result, count); break;
            default: Reduce<sbyte, long, Integers>(operation, contributions, result, count); break;
        }
    }

    private static void Reduce<T, TWide, TConversion>(ReduceOperation operation, ReadOnlySpan<nint> contributions, nint result, long count)
        where T : unmanaged where TWide : unmanaged, INumber<TWide> where TConversion : IConversion<TWide>
    {
        int levels = contributions.Length == 1 ? 1 : 1 + BitOperations.Log2((uint)contributions.Length - 1) + 1;
        TWide* scratch = (TWide*)NativeMemory.Alloc((nuint)(levels * Block), (nuint)sizeof(TWide));
        try
        {
            for (long begin = 0; begin < count; begin += Block)
            {
                int length = (int)Math.Min(Block, count - begin);
                Tree<T, TWide, TConversion>(operation, contributions, begin, length, scratch);
                TConversion.Narrow(new ReadOnlySpan<TWide>(scratch, length), new Span<T>((T*)result + begin, length));
            }
        }
        finally
        {
            NativeMemory.Free(scratch);
        }
    }

    /// <summary>The reduction of one block of all contributions, in the first level of the scratch memory.</summary>
    private static void Tree<T, TWide, TConversion>(ReduceOperation operation, ReadOnlySpan<nint> contributions, long begin, int length, TWide* scratch)
        where T : unmanaged where TWide : unmanaged, INumber<TWide> where TConversion : IConversion<TWide>
    {
        var own = new Span<TWide>(scratch, length);
        if (contributions.Length == 1)
        {
            TConversion.Widen(new ReadOnlySpan<T>((T*)contributions[0] + begin, length), own);
            return;
        }
        int middle = Middle(contributions.Length);
        Tree<T, TWide, TConversion>(operation, contributions[..middle], begin, length, scratch);
        Tree<T, TWide, TConversion>(operation, contributions[middle..], begin, length, scratch + Block);
        Join(operation, own, new ReadOnlySpan<TWide>(scratch + Block, length));
    }

    private static void Join<TWide>(ReduceOperation operation, Span<TWide> a, ReadOnlySpan<TWide> b) where TWide : unmanaged, INumber<TWide>
    {
        int i = 0;
        if (operation == ReduceOperation.Sum && typeof(TWide) == typeof(float))
        {
            Span<Vector<float>> sums = MemoryMarshal.Cast<TWide, Vector<float>>(a);
            ReadOnlySpan<Vector<float>> others = MemoryMarshal.Cast<TWide, Vector<float>>(b);
            for (int v = 0; v < sums.Length; v++) sums[v] += others[v];
            i = sums.Length * Vector<float>.Count;
        }
        for (; i < a.Length; i++)
        {
            a[i] = operation switch
            {
                ReduceOperation.Sum => checked(a[i] + b[i]),
                ReduceOperation.Max => TWide.Max(a[i], b[i]),
                _ => TWide.Min(a[i], b[i]),
            };
        }
    }

    private interface IConversion<TWide>
    {
        static abstract void Widen<T>(ReadOnlySpan<T> from, Span<TWide> to) where T : unmanaged;

        static abstract void Narrow<T>(ReadOnlySpan<TWide> from, Span<T> to) where T : unmanaged;
    }

    private readonly struct Floats : IConversion<float>
    {
        public static void Widen<T>(ReadOnlySpan<T> from, Span<float> to) where T : unmanaged
        {
            if (typeof(T) == typeof(float)) MemoryMarshal.Cast<T, float>(from).CopyTo(to);
            else if (typeof(T) == typeof(Half))
            {
                ReadOnlySpan<Half> halves = MemoryMarshal.Cast<T, Half>(from);
                for (int i = 0; i < to.Length; i++) to[i] = (float)halves[i];
            }
            else
            {
                ReadOnlySpan<BFloat16> values = MemoryMarshal.Cast<T, BFloat16>(from);
                for (int i = 0; i < to.Length; i++) to[i] = values[i];
            }
        }

        public static void Narrow<T>(ReadOnlySpan<float> from, Span<T> to) where T : unmanaged
        {
            if (typeof(T) == typeof(float)) MemoryMarshal.Cast<float, byte>(from).CopyTo(MemoryMarshal.AsBytes(to));
            else if (typeof(T) == typeof(Half))
            {
                Span<Half> halves = MemoryMarshal.Cast<T, Half>(to);
                for (int i = 0; i < from.Length; i++) halves[i] = (Half)from[i];
            }
            else
            {
                Span<BFloat16> values = MemoryMarshal.Cast<T, BFloat16>(to);
                for (int i = 0; i < from.Length; i++) values[i] = (BFloat16)from[i];
            }
        }
    }

    private readonly struct Integers : IConversion<long>
    {
        public static void Widen<T>(ReadOnlySpan<T> from, Span<long> to) where T : unmanaged
        {
            if (typeof(T) == typeof(int)) WidenNumbers(MemoryMarshal.Cast<T, int>(from), to);
            else if (typeof(T) == typeof(long)) MemoryMarshal.Cast<T, long>(from).CopyTo(to);
            else if (typeof(T) == typeof(byte)) WidenNumbers(MemoryMarshal.Cast<T, byte>(from), to);
            else WidenNumbers(MemoryMarshal.Cast<T, sbyte>(from), to);
        }

        public static void Narrow<T>(ReadOnlySpan<long> from, Span<T> to) where T : unmanaged
        {
            if (typeof(T) == typeof(int)) NarrowNumbers(from, MemoryMarshal.Cast<T, int>(to));
            else if (typeof(T) == typeof(long)) MemoryMarshal.Cast<long, T>(from).CopyTo(to);
            else if (typeof(T) == typeof(byte)) NarrowNumbers(from, MemoryMarshal.Cast<T, byte>(to));
            else NarrowNumbers(from, MemoryMarshal.Cast<T, sbyte>(to));
        }

        private static void WidenNumbers<T>(ReadOnlySpan<T> from, Span<long> to) where T : INumberBase<T>
        {
            for (int i = 0; i < to.Length; i++) to[i] = long.CreateTruncating(from[i]);
        }

        private static void NarrowNumbers<T>(ReadOnlySpan<long> from, Span<T> to) where T : INumberBase<T>
        {
            for (int i = 0; i < to.Length; i++) to[i] = T.CreateChecked(from[i]);
        }
    }
}
