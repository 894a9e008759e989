namespace ZEngine.Tests.Oracles;

/// <summary>The arithmetic an oracle may use, so that one loop yields the float64 value, its float32 rounding error and its gradient.</summary>
/// <remarks>Comparisons look at values only: a branch is not differentiated. A double converts to a constant, which costs no trace node.</remarks>
internal interface IReal<T> where T : struct, IReal<T>
{
    static abstract implicit operator T(double value);
    double ToDouble();

    static abstract T operator +(T a, T b);
    static abstract T operator -(T a, T b);
    static abstract T operator *(T a, T b);
    static abstract T operator /(T a, T b);
    static abstract T operator -(T a);

    static abstract bool operator <(T a, T b);
    static abstract bool operator >(T a, T b);
    static abstract bool operator <=(T a, T b);
    static abstract bool operator >=(T a, T b);

    static abstract T Exp(T a);
    static abstract T Expm1(T a);
    static abstract T Log(T a);
    static abstract T Log1p(T a);
    static abstract T Sqrt(T a);
    static abstract T Tanh(T a);
    static abstract T Erf(T a);
    static abstract T Sin(T a);
    static abstract T Cos(T a);
    static abstract T Abs(T a);

    /// <summary>a raised to a constant power.</summary>
    static abstract T Pow(T a, double power);

    /// <summary>The larger one; on a tie the first, which then takes the whole gradient.</summary>
    static virtual T Max(T a, T b) => a >= b ? a : b;

    /// <summary>What a tensor of activations keeps of a number: with 16-bit activations it is rounded, and so is the gradient that comes back.</summary>
    static virtual T Store(T a) => a;

    /// <summary>a as BFloat16, in the way in which this arithmetic rounds.</summary>
    static virtual T ToBFloat16(T a) => (double)(float)(BFloat16)(float)a.ToDouble();

    /// <summary>The smaller one; on a tie the first, which then takes the whole gradient.</summary>
    static virtual T Min(T a, T b) => a <= b ? a : b;
}
