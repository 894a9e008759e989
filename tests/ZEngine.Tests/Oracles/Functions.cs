namespace ZEngine.Tests.Oracles;

/// <summary>The float64 functions that System.Math lacks, and the activations every op shares.</summary>
internal static class Functions
{
    /// <summary>log(1 + x) without loss near 0: the factor x / ((1 + x) - 1) undoes the rounding of 1 + x (Goldberg 1991, theorem 4).</summary>
    public static double Log1p(double x)
    {
        double y = 1 + x;
        return y == 1 ? x : double.IsInfinity(y) ? Math.Log(y) : Math.Log(y) * (x / (y - 1));
    }

    /// <summary>exp(x) - 1 without loss near 0, by 2 tanh(x/2) / (1 - tanh(x/2)).</summary>
    public static double Expm1(double x)
    {
        if (Math.Abs(x) > 0.5) return Math.Exp(x) - 1;
        double t = Math.Tanh(x / 2);
        return 2 * t / (1 - t);
    }

    /// <summary>The error function: its all-positive series below 2.5, the continued fraction of erfc above.</summary>
    public static double Erf(double x)
    {
        double size = Math.Abs(x), square = x * x;
        if (double.IsNaN(x)) return x;
        if (size < 2.5)
        {
            double term = x, sum = x;                          // exp(-x²) · Σ 2^n x^(2n+1) / (2n+1)!!
            for (int n = 1; Math.Abs(term) > 1e-18 * Math.Abs(sum); n++) sum += term *= 2 * square / (2 * n + 1);
            return 2 / Math.Sqrt(Math.PI) * Math.Exp(-square) * sum;
        }
        if (size > 6) return Math.Sign(x);                     // erfc(6) is 2e-17
        double tail = size;                                    // x + (1/2)/(x + (2/2)/(x + (3/2)/(x + …)))
        for (int n = 120; n >= 1; n--) tail = size + n / 2.0 / tail;
        return Math.Sign(x) * (1 - Math.Exp(-square) / Math.Sqrt(Math.PI) / tail);
    }

    public static T Sigmoid<T>(T x) where T : struct, IReal<T>
    {
        if (x >= 0.0) return 1.0 / (1.0 + T.Exp(-x));
        T e = T.Exp(x);
        return e / (1.0 + e);
    }

    /// <summary>log(1 + exp(x)), written so that exp never overflows.</summary>
    public static T Softplus<T>(T x) where T : struct, IReal<T> =>
        x > 0.0 ? x + T.Log1p(T.Exp(-x)) : T.Log1p(T.Exp(x));

    public static T Silu<T>(T x) where T : struct, IReal<T> => x * Sigmoid(x);

    public static T Gelu<T>(T x) where T : struct, IReal<T> => 0.5 * x * (1.0 + T.Erf(x * Math.Sqrt(0.5)));

    /// <summary>Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.</summary>
    public static T GeluTanh<T>(T x) where T : struct, IReal<T> =>
        0.5 * x * (1.0 + T.Tanh(Math.Sqrt(2 / Math.PI) * (x + 0.044715 * (x * x * x))));

    public static T Relu<T>(T x) where T : struct, IReal<T> => x > 0.0 ? x : 0.0;

    /// <summary>The pointwise function of that name.</summary>
    public static T Apply<T>(string name, T x) where T : struct, IReal<T> => name switch
    {
        "exp" => T.Exp(x),
        "log" => T.Log(x),
        "sqrt" => T.Sqrt(x),
        "rsqrt" => 1.0 / T.Sqrt(x),
        "sigmoid" => Sigmoid(x),
        "silu" => Silu(x),
        "gelu" => Gelu(x),
        "gelu_tanh" => GeluTanh(x),
        "relu" => Relu(x),
        "relu2" => Relu(x) * Relu(x),
        "softplus" => Softplus(x),
        "tanh" => T.Tanh(x),
        "square" => x * x,
        "negate" => -x,
        "reciprocal" => 1.0 / x,
        "abs" => T.Abs(x),
        _ => throw new ArgumentException($"No pointwise function '{name}'."),
    };

    /// <summary>The pointwise function of two arguments of that name.</summary>
    public static T Apply<T>(string name, T a, T b) where T : struct, IReal<T> => name switch
    {
        "add" => a + b,
        "sub" => a - b,
        "mul" => a * b,
        "div" => a / b,
        "max" => T.Max(a, b),
        "min" => T.Min(a, b),
        _ => throw new ArgumentException($"No pointwise function of two arguments '{name}'."),
    };
}
