using System.Runtime.CompilerServices;

namespace ZEngine;

/// <summary>A function of one number and its derivative, on registers.</summary>
internal interface IPointwise
{
    static abstract T Value<T>(T x) where T : struct, IFloats<T>;
    static abstract T Derivative<T>(T x) where T : struct, IFloats<T>;
}

internal readonly struct Identity : IPointwise
{
    public static T Value<T>(T x) where T : struct, IFloats<T> => x;
    public static T Derivative<T>(T x) where T : struct, IFloats<T> => T.Broadcast(1f);
}

internal readonly struct Negate : IPointwise
{
    public static T Value<T>(T x) where T : struct, IFloats<T> => -x;
    public static T Derivative<T>(T x) where T : struct, IFloats<T> => T.Broadcast(-1f);
}

internal readonly struct Abs : IPointwise
{
    public static T Value<T>(T x) where T : struct, IFloats<T> => T.Abs(x);
    public static T Derivative<T>(T x) where T : struct, IFloats<T> =>
        T.SelectGreater(x, T.Zero, T.Broadcast(1f), T.SelectGreater(T.Zero, x, T.Broadcast(-1f), T.Zero));
}

internal readonly struct Square : IPointwise
{
    public static T Value<T>(T x) where T : struct, IFloats<T> => x * x;
    public static T Derivative<T>(T x) where T : struct, IFloats<T> => x + x;
}

internal readonly struct Sqrt : IPointwise
{
    public static T Value<T>(T x) where T : struct, IFloats<T> => T.Sqrt(x);
    public static T Derivative<T>(T x) where T : struct, IFloats<T> => T.Broadcast(0.5f) / T.Sqrt(x);
}

internal readonly struct Rsqrt : IPointwise
{
    public static T Value<T>(T x) where T : struct, IFloats<T> => T.Broadcast(1f) / T.Sqrt(x);
    public static T Derivative<T>(T x) where T : struct, IFloats<T> => T.Broadcast(-0.5f) / (x * T.Sqrt(x));
}

internal readonly struct Reciprocal : IPointwise
{
    public static T Value<T>(T x) where T : struct, IFloats<T> => T.Broadcast(1f) / x;
    public static T Derivative<T>(T x) where T : struct, IFloats<T> => T.Broadcast(-1f) / (x * x);
}

internal readonly struct Exp : IPointwise
{
    public static T Value<T>(T x) where T : struct, IFloats<T> => CpuMath.Exp(x);
    public static T Derivative<T>(T x) where T : struct, IFloats<T> => CpuMath.Exp(x);
}

internal readonly struct Log : IPointwise
{
    public static T Value<T>(T x) where T : struct, IFloats<T> => CpuMath.Log(x);
    public static T Derivative<T>(T x) where T : struct, IFloats<T> => T.Broadcast(1f) / x;
}

internal readonly struct Sigmoid : IPointwise
{
    public static T Value<T>(T x) where T : struct, IFloats<T> => CpuMath.Sigmoid(x);
    public static T Derivative<T>(T x) where T : struct, IFloats<T> => CpuMath.Sigmoid(x) * CpuMath.Sigmoid(-x);
}

internal readonly struct Silu : IPointwise
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Value<T>(T x) where T : struct, IFloats<T> => x * CpuMath.Sigmoid(x);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Derivative<T>(T x) where T : struct, IFloats<T>
    {
        T s = CpuMath.Sigmoid(x);
        return s * T.MulAdd(x, T.Broadcast(1f) - s, T.Broadcast(1f));
    }
}

internal readonly struct Gelu : IPointwise
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Value<T>(T x) where T : struct, IFloats<T> => x * CpuMath.Normal(x).Cumulative;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Derivative<T>(T x) where T : struct, IFloats<T>
    {
        (T cumulative, T density) = CpuMath.Normal(x);
        return T.MulAdd(x, density, cumulative);
    }
}

internal readonly struct GeluTanh : IPointwise
{
    private const float Root = 0.797884561f, Cubic = 0.044715f;          // √(2/π)

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Value<T>(T x) where T : struct, IFloats<T> => x * Gate(x);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Derivative<T>(T x) where T : struct, IFloats<T>
    {
        T s = Gate(x), slope = T.MulAdd(x * x, T.Broadcast(6 * Root * Cubic), T.Broadcast(2 * Root));
        return s * T.MulAdd(x * slope, T.Broadcast(1f) - s, T.Broadcast(1f));
    }

    /// <summary>½(1 + tanh v) = sigmoid(2v).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Gate<T>(T x) where T : struct, IFloats<T> => CpuMath.Sigmoid(x * T.MulAdd(x * x, T.Broadcast(2 * Root * Cubic), T.Broadcast(2 * Root)));
}

internal readonly struct Relu : IPointwise
{
    public static T Value<T>(T x) where T : struct, IFloats<T> => T.Max(T.Zero, x);
    public static T Derivative<T>(T x) where T : struct, IFloats<T> => T.SelectGreater(x, T.Zero, T.Broadcast(1f), T.Zero);
}

internal readonly struct Relu2 : IPointwise
{
    public static T Value<T>(T x) where T : struct, IFloats<T>
    {
        T positive = T.Max(T.Zero, x);
        return positive * positive;
    }

    public static T Derivative<T>(T x) where T : struct, IFloats<T> => T.Max(T.Zero, x + x);
}

internal readonly struct Tanh : IPointwise
{
    public static T Value<T>(T x) where T : struct, IFloats<T> => CpuMath.Tanh(x);

    public static T Derivative<T>(T x) where T : struct, IFloats<T>
    {
        T t = CpuMath.Tanh(x);
        return T.MulAdd(-t, t, T.Broadcast(1f));
    }
}

internal readonly struct Softplus : IPointwise
{
    public static T Value<T>(T x) where T : struct, IFloats<T> => CpuMath.Softplus(x);
    public static T Derivative<T>(T x) where T : struct, IFloats<T> => CpuMath.Sigmoid(x);
}
