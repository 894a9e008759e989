namespace ZEngine.Tests.Oracles;

/// <summary>
/// float32 that rounds up or down at random after every step, and to BFloat16 where that is stored, with the odds of the distance (stochastic rounding), from a seeded generator.
/// </summary>
/// <remarks>
/// One run in <see cref="Rounded"/> is one sample of the rounding error. For a tensor of a thousand elements that is plenty; for a loss or a
/// dA of four elements it may come out near zero by luck, and a rule built on it would reject correct code. Runs in this arithmetic are further
/// independent samples of the same error.
/// </remarks>
internal readonly record struct Dithered(float Value) : IReal<Dithered>
{
    /// <summary>A float64 has 29 bits of mantissa more than a float32.</summary>
    private const long DroppedBits = (1L << 29) - 1;

    /// <summary>A float32 has 16 bits of mantissa more than a BFloat16.</summary>
    private const int BFloatDroppedBits = (1 << 16) - 1;

    [ThreadStatic] private static ulong s_state;

    /// <summary>Starts this thread's noise anew; the same seed gives the same run.</summary>
    public static void Seed(ulong seed) => s_state = seed * 0x9E3779B97F4A7C15 + 0xD1B54A32D192ED03;

    private static long Noise()
    {
        ulong noise = s_state;
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        s_state = noise;
        return (long)(noise >> 20);
    }

    private static Dithered Step(double exact)
    {
        if (!double.IsNormal(exact)) return new((float)exact);
        long bits = BitConverter.DoubleToInt64Bits(exact) + (Noise() & DroppedBits);
        return new((float)BitConverter.Int64BitsToDouble(bits & ~DroppedBits));
    }

    public static Dithered ToBFloat16(Dithered a)
    {
        if (!float.IsNormal(a.Value)) return a;
        int bits = BitConverter.SingleToInt32Bits(a.Value) + ((int)Noise() & BFloatDroppedBits);
        return new(BitConverter.Int32BitsToSingle(bits & ~BFloatDroppedBits));
    }

    public static implicit operator Dithered(double value) => new((float)value);
    public double ToDouble() => Value;

    public static Dithered operator +(Dithered a, Dithered b) => Step((double)a.Value + b.Value);
    public static Dithered operator -(Dithered a, Dithered b) => Step((double)a.Value - b.Value);
    public static Dithered operator *(Dithered a, Dithered b) => Step((double)a.Value * b.Value);
    public static Dithered operator /(Dithered a, Dithered b) => Step((double)a.Value / b.Value);
    public static Dithered operator -(Dithered a) => new(-a.Value);

    public static bool operator <(Dithered a, Dithered b) => a.Value < b.Value;
    public static bool operator >(Dithered a, Dithered b) => a.Value > b.Value;
    public static bool operator <=(Dithered a, Dithered b) => a.Value <= b.Value;
    public static bool operator >=(Dithered a, Dithered b) => a.Value >= b.Value;

    public static Dithered Exp(Dithered a) => Step(Math.Exp(a.Value));
    public static Dithered Expm1(Dithered a) => Step(Functions.Expm1(a.Value));
    public static Dithered Log(Dithered a) => Step(Math.Log(a.Value));
    public static Dithered Log1p(Dithered a) => Step(Functions.Log1p(a.Value));
    public static Dithered Sqrt(Dithered a) => Step(Math.Sqrt(a.Value));
    public static Dithered Tanh(Dithered a) => Step(Math.Tanh(a.Value));
    public static Dithered Erf(Dithered a) => Step(Functions.Erf(a.Value));
    public static Dithered Sin(Dithered a) => Step(Math.Sin(a.Value));
    public static Dithered Cos(Dithered a) => Step(Math.Cos(a.Value));
    public static Dithered Abs(Dithered a) => new(Math.Abs(a.Value));
    public static Dithered Pow(Dithered a, double power) => Step(Math.Pow(a.Value, power));
}
