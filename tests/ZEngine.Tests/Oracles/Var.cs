namespace ZEngine.Tests.Oracles;

/// <summary>A number of type T that remembers where it came from: reverse-mode differentiation, one scalar at a time.</summary>
/// <remarks>
/// <c>Var&lt;Real&gt;</c> gives exact gradients, <c>Var&lt;Rounded&gt;</c> the same gradients with float32 rounding in both directions.
/// Node 0 is "no node": a default value is the constant 0, and what is made of constants alone is a constant.
/// </remarks>
internal readonly struct Var<T>(T value, int node) : IReal<Var<T>> where T : struct, IReal<T>
{
    public T Value { get; } = value;
    public int Node { get; } = node;

    public static Var<T> Constant(T value) => new(value, 0);
    public static Var<T> Input(T value) => new(value, Trace<T>.Current.Add(0, default, 0, default));

    private static Var<T> Of(T value, Var<T> a, T da) =>
        new(value, a.Node == 0 ? 0 : Trace<T>.Current.Add(a.Node, da, 0, default));

    private static Var<T> Of(T value, Var<T> a, T da, Var<T> b, T db) =>
        new(value, (a.Node | b.Node) == 0 ? 0 : Trace<T>.Current.Add(a.Node, da, b.Node, db));

    public static implicit operator Var<T>(double value) => new(value, 0);
    public double ToDouble() => Value.ToDouble();

    public static Var<T> operator +(Var<T> a, Var<T> b) => Of(a.Value + b.Value, a, 1.0, b, 1.0);
    public static Var<T> operator -(Var<T> a, Var<T> b) => Of(a.Value - b.Value, a, 1.0, b, -1.0);
    public static Var<T> operator *(Var<T> a, Var<T> b) => Of(a.Value * b.Value, a, b.Value, b, a.Value);
    public static Var<T> operator -(Var<T> a) => Of(-a.Value, a, -1.0);

    public static Var<T> operator /(Var<T> a, Var<T> b)
    {
        T quotient = a.Value / b.Value;
        return Of(quotient, a, 1.0 / b.Value, b, -quotient / b.Value);
    }

    public static bool operator <(Var<T> a, Var<T> b) => a.Value < b.Value;
    public static bool operator >(Var<T> a, Var<T> b) => a.Value > b.Value;
    public static bool operator <=(Var<T> a, Var<T> b) => a.Value <= b.Value;
    public static bool operator >=(Var<T> a, Var<T> b) => a.Value >= b.Value;

    public static Var<T> Exp(Var<T> a)
    {
        T e = T.Exp(a.Value);
        return Of(e, a, e);
    }

    public static Var<T> Expm1(Var<T> a) => Of(T.Expm1(a.Value), a, T.Exp(a.Value));
    public static Var<T> Log(Var<T> a) => Of(T.Log(a.Value), a, 1.0 / a.Value);
    public static Var<T> Log1p(Var<T> a) => Of(T.Log1p(a.Value), a, 1.0 / (1.0 + a.Value));

    public static Var<T> Sqrt(Var<T> a)
    {
        T root = T.Sqrt(a.Value);
        return Of(root, a, 0.5 / root);
    }

    public static Var<T> Tanh(Var<T> a)
    {
        T t = T.Tanh(a.Value);
        return Of(t, a, (1.0 - t) * (1.0 + t));
    }

    public static Var<T> Erf(Var<T> a) => Of(T.Erf(a.Value), a, 2 / Math.Sqrt(Math.PI) * T.Exp(-(a.Value * a.Value)));
    public static Var<T> Sin(Var<T> a) => Of(T.Sin(a.Value), a, T.Cos(a.Value));
    public static Var<T> Cos(Var<T> a) => Of(T.Cos(a.Value), a, -T.Sin(a.Value));
    public static Var<T> Abs(Var<T> a) => Of(T.Abs(a.Value), a, a.Value > 0.0 ? 1.0 : a.Value < 0.0 ? -1.0 : 0.0);
    public static Var<T> Store(Var<T> a) => new(T.Store(a.Value), a.Node == 0 ? 0 : Trace<T>.Current.AddStored(a.Node));
    public static Var<T> Pow(Var<T> a, double power) => Of(T.Pow(a.Value, power), a, (T)power * T.Pow(a.Value, power - 1));
}
