namespace ZEngine.Tests.Oracles;

/// <summary>The arithmetic of T where tensors of activations are BFloat16: what is stored is rounded, what is computed between is not.</summary>
internal readonly record struct BFloat<T>(T Value) : IReal<BFloat<T>> where T : struct, IReal<T>
{
    public static BFloat<T> Store(BFloat<T> a) => new(T.ToBFloat16(a.Value));

    public static implicit operator BFloat<T>(double value) => new(value);
    public double ToDouble() => Value.ToDouble();

    public static BFloat<T> operator +(BFloat<T> a, BFloat<T> b) => new(a.Value + b.Value);
    public static BFloat<T> operator -(BFloat<T> a, BFloat<T> b) => new(a.Value - b.Value);
    public static BFloat<T> operator *(BFloat<T> a, BFloat<T> b) => new(a.Value * b.Value);
    public static BFloat<T> operator /(BFloat<T> a, BFloat<T> b) => new(a.Value / b.Value);
    public static BFloat<T> operator -(BFloat<T> a) => new(-a.Value);

    public static bool operator <(BFloat<T> a, BFloat<T> b) => a.Value < b.Value;
    public static bool operator >(BFloat<T> a, BFloat<T> b) => a.Value > b.Value;
    public static bool operator <=(BFloat<T> a, BFloat<T> b) => a.Value <= b.Value;
    public static bool operator >=(BFloat<T> a, BFloat<T> b) => a.Value >= b.Value;

    public static BFloat<T> Exp(BFloat<T> a) => new(T.Exp(a.Value));
    public static BFloat<T> Expm1(BFloat<T> a) => new(T.Expm1(a.Value));
    public static BFloat<T> Log(BFloat<T> a) => new(T.Log(a.Value));
    public static BFloat<T> Log1p(BFloat<T> a) => new(T.Log1p(a.Value));
    public static BFloat<T> Sqrt(BFloat<T> a) => new(T.Sqrt(a.Value));
    public static BFloat<T> Tanh(BFloat<T> a) => new(T.Tanh(a.Value));
    public static BFloat<T> Erf(BFloat<T> a) => new(T.Erf(a.Value));
    public static BFloat<T> Sin(BFloat<T> a) => new(T.Sin(a.Value));
    public static BFloat<T> Cos(BFloat<T> a) => new(T.Cos(a.Value));
    public static BFloat<T> Abs(BFloat<T> a) => new(T.Abs(a.Value));
    public static BFloat<T> Pow(BFloat<T> a, double power) => new(T.Pow(a.Value, power));
}
