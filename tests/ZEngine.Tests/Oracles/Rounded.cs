namespace ZEngine.Tests.Oracles;

/// <summary>float32 that rounds to nearest after every step: what an honest float loop makes of the equation.</summary>
/// <remarks>Transcendental functions are taken in float64 and rounded once.</remarks>
internal readonly record struct Rounded(float Value) : IReal<Rounded>
{
    public static implicit operator Rounded(double value) => new((float)value);
    public double ToDouble() => Value;

    public static Rounded operator +(Rounded a, Rounded b) => new(a.Value + b.Value);
    public static Rounded operator -(Rounded a, Rounded b) => new(a.Value - b.Value);
    public static Rounded operator *(Rounded a, Rounded b) => new(a.Value * b.Value);
    public static Rounded operator /(Rounded a, Rounded b) => new(a.Value / b.Value);
    public static Rounded operator -(Rounded a) => new(-a.Value);

    public static bool operator <(Rounded a, Rounded b) => a.Value < b.Value;
    public static bool operator >(Rounded a, Rounded b) => a.Value > b.Value;
    public static bool operator <=(Rounded a, Rounded b) => a.Value <= b.Value;
    public static bool operator >=(Rounded a, Rounded b) => a.Value >= b.Value;

    public static Rounded Exp(Rounded a) => Math.Exp(a.Value);
    public static Rounded Expm1(Rounded a) => Functions.Expm1(a.Value);
    public static Rounded Log(Rounded a) => Math.Log(a.Value);
    public static Rounded Log1p(Rounded a) => Functions.Log1p(a.Value);
    public static Rounded Sqrt(Rounded a) => Math.Sqrt(a.Value);
    public static Rounded Tanh(Rounded a) => Math.Tanh(a.Value);
    public static Rounded Erf(Rounded a) => Functions.Erf(a.Value);
    public static Rounded Sin(Rounded a) => Math.Sin(a.Value);
    public static Rounded Cos(Rounded a) => Math.Cos(a.Value);
    public static Rounded Abs(Rounded a) => new(Math.Abs(a.Value));
    public static Rounded Pow(Rounded a, double power) => Math.Pow(a.Value, power);
}
