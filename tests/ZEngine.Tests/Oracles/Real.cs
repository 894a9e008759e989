namespace ZEngine.Tests.Oracles;

/// <summary>float64: the arithmetic of the reference.</summary>
internal readonly record struct Real(double Value) : IReal<Real>
{
    public static implicit operator Real(double value) => new(value);
    public double ToDouble() => Value;

    public static Real operator +(Real a, Real b) => new(a.Value + b.Value);
    public static Real operator -(Real a, Real b) => new(a.Value - b.Value);
    public static Real operator *(Real a, Real b) => new(a.Value * b.Value);
    public static Real operator /(Real a, Real b) => new(a.Value / b.Value);
    public static Real operator -(Real a) => new(-a.Value);

    public static bool operator <(Real a, Real b) => a.Value < b.Value;
    public static bool operator >(Real a, Real b) => a.Value > b.Value;
    public static bool operator <=(Real a, Real b) => a.Value <= b.Value;
    public static bool operator >=(Real a, Real b) => a.Value >= b.Value;

    public static Real Exp(Real a) => new(Math.Exp(a.Value));
    public static Real Expm1(Real a) => new(Functions.Expm1(a.Value));
    public static Real Log(Real a) => new(Math.Log(a.Value));
    public static Real Log1p(Real a) => new(Functions.Log1p(a.Value));
    public static Real Sqrt(Real a) => new(Math.Sqrt(a.Value));
    public static Real Tanh(Real a) => new(Math.Tanh(a.Value));
    public static Real Erf(Real a) => new(Functions.Erf(a.Value));
    public static Real Sin(Real a) => new(Math.Sin(a.Value));
    public static Real Cos(Real a) => new(Math.Cos(a.Value));
    public static Real Abs(Real a) => new(Math.Abs(a.Value));
    public static Real Pow(Real a, double power) => new(Math.Pow(a.Value, power));
}
