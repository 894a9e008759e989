using System.Runtime.CompilerServices;

namespace ZEngine;

/// <summary>Elementary functions on registers of floats.</summary>
/// <remarks>Within three units in the last place; Φ within seven, and on the left by about one more per unit of x². <c>CpuMathTests</c> holds the bounds.</remarks>
internal static class CpuMath
{
    private const float Log2E = 1.44269504f, Ln2High = 0.693359375f, Ln2Low = -2.12194440e-4f, Ln2 = 0.693147181f;

    /// <summary>e^x: x = n·ln 2 + r, then a Taylor polynomial of degree 7 in |r| ≤ ln(2)/2 and a scaling by 2^n in two steps, so that denormal results are right too.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Exp<T>(T x) where T : struct, IFloats<T>
    {
        x = T.Max(T.Broadcast(-104f), T.Min(T.Broadcast(89f), x));
        T n = T.Round(x * T.Broadcast(Log2E));
        T r = T.MulAdd(n, T.Broadcast(-Ln2High), x);
        r = T.MulAdd(n, T.Broadcast(-Ln2Low), r);
        T p = T.MulAdd(r, T.Broadcast(1f / 5040), T.Broadcast(1f / 720));
        p = T.MulAdd(p, r, T.Broadcast(1f / 120));
        p = T.MulAdd(p, r, T.Broadcast(1f / 24));
        p = T.MulAdd(p, r, T.Broadcast(1f / 6));
        p = T.MulAdd(p, r, T.Broadcast(0.5f));
        return T.Scale(T.MulAdd(p, r * r, r) + T.Broadcast(1f), n);
    }

    /// <summary>a·2^n in two steps, of which the first is exact.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Scale<T>(T a, T n) where T : struct, IFloats<T>
    {
        T half = T.Round(n * T.Broadcast(0.5f));
        return a * T.Power2(half) * T.Power2(n - half);
    }

    /// <summary>ln x, by ln m = 2·atanh((m-1)/(m+1)) for the mantissa; -∞ at 0, NaN below.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Log<T>(T x) where T : struct, IFloats<T>
    {
        // Denormals are scaled up by 2^24 first.
        T scaled = T.SelectGreater(T.Broadcast(1.17549435e-38f), x, x * T.Broadcast(16777216f), x);
        T exponent = T.Exponent(scaled) - T.SelectGreater(T.Broadcast(1.17549435e-38f), x, T.Broadcast(24f), T.Zero);
        T result = LogOfMantissa(T.Mantissa(scaled), exponent);
        result = T.SelectGreater(x, T.Broadcast(float.MaxValue), x, result);                       // ∞
        result = T.SelectGreater(x, T.Zero, result, T.SelectGreater(T.Zero, x, T.Broadcast(float.NaN), T.Broadcast(float.NegativeInfinity)));
        return T.SelectNaN(x, x, result);
    }

    /// <summary>ln(1 + y) for y in [0, 1]: the rounding of 1 + y is put back.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Log1PlusUnit<T>(T y) where T : struct, IFloats<T>
    {
        T u = T.Broadcast(1f) + y;
        return LogOfMantissa(T.Mantissa(u), T.Exponent(u)) + (y - (u - T.Broadcast(1f))) / u;
    }

    /// <summary>ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Softplus<T>(T x) where T : struct, IFloats<T> => T.Max(T.Zero, x) + Log1PlusUnit(Exp(-T.Abs(x)));

    /// <summary>1 / (1 + e^-x), from e^-|x| so that nothing overflows.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Sigmoid<T>(T x) where T : struct, IFloats<T>
    {
        T e = Exp(-T.Abs(x));
        return T.SelectGreater(T.Zero, x, e, T.Broadcast(1f)) / (T.Broadcast(1f) + e);
    }

    /// <summary>tanh x: the odd series below 0.4, else from e^-2|x|.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Tanh<T>(T x) where T : struct, IFloats<T>
    {
        T a = T.Abs(x), z = x * x;
        T p = T.MulAdd(z, T.Broadcast(21844f / 6081075), T.Broadcast(-1382f / 155925));
        p = T.MulAdd(p, z, T.Broadcast(62f / 2835));
        p = T.MulAdd(p, z, T.Broadcast(-17f / 315));
        p = T.MulAdd(p, z, T.Broadcast(2f / 15));
        p = T.MulAdd(p, z, T.Broadcast(-1f / 3));
        T small = T.MulAdd(p * z, x, x);
        T e = Exp(a * T.Broadcast(-2f));
        T large = T.CopySign((T.Broadcast(1f) - e) / (T.Broadcast(1f) + e), x);
        return T.SelectGreater(T.Broadcast(0.4f), a, small, large);
    }

    /// <summary>Φ(x) and φ(x) of the standard normal distribution.</summary>
    /// <remarks>erfc(t) = e^(-t²)·u·q(u) with u = 1 / (1 + 0.35·t); q interpolates at ten Chebyshev points over t in [0, 12], relative error 1.2e-8.</remarks>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (T Cumulative, T Density) Normal<T>(T x) where T : struct, IFloats<T>
    {
        T t = T.Abs(x) * T.Broadcast(0.707106781f);
        T e = Exp(-(t * t));
        T u = T.Broadcast(1f) / T.MulAdd(t, T.Broadcast(0.35f), T.Broadcast(1f));
        T q = T.MulAdd(u, T.Broadcast(0.039416053f), T.Broadcast(-0.164974624f));
        q = T.MulAdd(q, u, T.Broadcast(0.197046512f));
        q = T.MulAdd(q, u, T.Broadcast(-0.0504728816f));
        q = T.MulAdd(q, u, T.Broadcast(0.107743202f));
        q = T.MulAdd(q, u, T.Broadcast(0.133880731f));
        q = T.MulAdd(q, u, T.Broadcast(0.155775721f));
        q = T.MulAdd(q, u, T.Broadcast(0.18683078f));
        q = T.MulAdd(q, u, T.Broadcast(0.197278554f));
        q = T.MulAdd(q, u, T.Broadcast(0.197475959f));
        T tail = q * u * e * T.Broadcast(0.5f);
        return (T.SelectGreater(x, T.Zero, T.Broadcast(1f) - tail, tail), e * T.Broadcast(0.398942280f));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T LogOfMantissa<T>(T m, T exponent) where T : struct, IFloats<T>
    {
        // Bring m from [0.5, 1) to [√½, √2), where the series is short.
        T root = T.Broadcast(0.707106781f);
        T e = T.SelectGreater(root, m, exponent - T.Broadcast(1f), exponent);
        m = T.SelectGreater(root, m, m + m, m);
        T s = (m - T.Broadcast(1f)) / (m + T.Broadcast(1f)), z = s * s;
        T p = T.MulAdd(z, T.Broadcast(2f / 11), T.Broadcast(2f / 9));
        p = T.MulAdd(p, z, T.Broadcast(2f / 7));
        p = T.MulAdd(p, z, T.Broadcast(2f / 5));
        p = T.MulAdd(p, z, T.Broadcast(2f / 3));
        return T.MulAdd(e, T.Broadcast(Ln2), T.MulAdd(p * z, s, s + s));
    }
}
