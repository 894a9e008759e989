namespace ZEngine.Models;

/// <summary>The cosines and sines that <see cref="Ops.Rope"/> rotates with, for every frequency scaling in use; worked out in double, once.</summary>
/// <remarks>
/// Angle of pair i at position p: p·f_i, with f_i = θ^(-2i/r) changed by the scaling. Su et al. 2021, arXiv:2104.09864; for the
/// scalings see <see cref="RotaryScaling"/>. Under Dynamic and LongRope the frequencies depend on the current length, and keys that
/// were rotated at a shorter one keep their rotation. Several threads may ask for tables at once.
/// </remarks>
public sealed class RotaryEmbedding : IDisposable
{
    private const long LeastRows = 256;

    private readonly Device _device;
    private readonly double[] _plain;
    private readonly Lock _gate = new();
    private Table? _near, _far;                                // up to the trained length, and beyond it
    private bool _isDisposed;

    /// <summary>Prepares the frequencies; tables follow on demand.</summary>
    /// <param name="options">What the configuration says.</param>
    /// <param name="rotaryDim">How many channels r of a head rotate, see <see cref="RotaryOptions.RotaryDimension"/>.</param>
    /// <param name="device">Where the tables live.</param>
    /// <exception cref="ArgumentException">An odd width, or a scaling without the values it needs.</exception>
    public RotaryEmbedding(RotaryOptions options, int rotaryDim, Device device)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(device);
        Require(rotaryDim > 0 && rotaryDim % 2 == 0, $"the rotary width must be positive and even, got {rotaryDim}.");
        (Options, RotaryDim, _device) = (options, rotaryDim, device);
        RequireOptions();
        _plain = options.Scaling switch
        {
            RotaryScaling.Linear => [.. Powers(options.Theta).Select(f => f / options.Factor)],
            RotaryScaling.Yarn => Yarn(),
            RotaryScaling.Llama3 => [.. Powers(options.Theta).Select(Llama3)],
            RotaryScaling.LongRope => Divided(options.ShortFactors),
            _ => Powers(options.Theta),
        };
        Multiplier = FindMultiplier();
    }

    /// <summary>The one embedding of a model, made at its first use: sessions on several threads get the same one.</summary>
    internal static RotaryEmbedding Shared(ref RotaryEmbedding? place, RotaryOptions options, int headDimension, Device device) =>
        Volatile.Read(ref place) ?? Interlocked.CompareExchange(ref place, new RotaryEmbedding(options, options.RotaryDimension(headDimension), device), null) ?? place;

    /// <summary>What it was made from.</summary>
    public RotaryOptions Options { get; }

    /// <summary>How many channels of a head rotate.</summary>
    public int RotaryDim { get; }

    /// <summary>What every cosine and sine is multiplied with.</summary>
    public double Multiplier { get; }

    /// <summary>The length beyond which the frequencies change; none for rules that do not look at the length.</summary>
    private long Border => Options.Scaling switch
    {
        RotaryScaling.Dynamic => Options.MaxPositions!.Value,
        RotaryScaling.LongRope => (Options.OriginalMaxPositions ?? Options.MaxPositions)!.Value,
        _ => long.MaxValue,
    };

    /// <summary>Whether a sequence is rotated alike at every length up to this one.</summary>
    internal bool IsAlikeUpTo(long positions) => positions <= Border;

    /// <summary>The tables for a sequence that is <paramref name="positions"/> long now, cache included: at least that many rows.</summary>
    /// <returns>
    /// Two Float32 tensors [rows, r/2]. They are views that belong to the innermost open scope, or to the caller, as the result of an
    /// op does; the elements stay with this object, and with a tape for as long as that needs them.
    /// </returns>
    public (Tensor Cosine, Tensor Sine) Tables(long positions)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(positions);
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            bool isFar = positions > Border;
            ref Table? table = ref isFar ? ref _far : ref _near;
            bool isExact = isFar && Options.Scaling == RotaryScaling.Dynamic;           // its frequencies hold for one length only
            if (table is null || (isExact ? table.Rows != positions : table.Rows < positions))
            {
                long rows = isExact ? positions : Math.Max(positions, Math.Max(LeastRows, 2 * (table?.Rows ?? 0)));
                table?.Dispose();
                table = null;
                table = Build(FrequenciesAt(positions), isFar ? rows : Math.Min(rows, Border));
            }
            return (table.Cosine.Detach(), table.Sine.Detach());
        }
    }

    /// <summary>The angle per position of every pair, in a sequence of the given length.</summary>
    public IReadOnlyList<double> Frequencies(long positions)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(positions);
        return FrequenciesAt(positions).AsReadOnly();
    }

    /// <summary>Gives the tables back; views that are still in use keep theirs.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _isDisposed = true;
            _near?.Dispose();
            _far?.Dispose();
            (_near, _far) = (null, null);
        }
    }

    private static void Require(bool condition, string message)
    {
        if (!condition) throw new ArgumentException($"RotaryEmbedding: {message}");
    }

    private void RequireOptions()
    {
        RotaryOptions o = Options;
        Require(o.Theta > 0 && double.IsFinite(o.Theta), $"theta must be positive, got {o.Theta}.");
        Require(o.Factor >= 1 && double.IsFinite(o.Factor), $"the factor must be at least 1, got {o.Factor}.");
        Require(o.MaxPositions is null or > 0 && o.OriginalMaxPositions is null or > 0, "lengths must be positive.");
        Require(o.AttentionFactor is null or > 0, $"the attention factor must be positive, got {o.AttentionFactor}.");
        bool hasLength = o.OriginalMaxPositions is not null || o.MaxPositions is not null;
        switch (o.Scaling)
        {
            case RotaryScaling.Dynamic:
                Require(o.MaxPositions is not null, "Dynamic needs MaxPositions.");
                break;
            case RotaryScaling.Yarn:
                Require(hasLength, "Yarn needs OriginalMaxPositions.");
                Require(o.Theta != 1 && o is { BetaFast: > 0, BetaSlow: > 0 }, "Yarn needs a theta other than 1 and positive betas.");
                break;
            case RotaryScaling.Llama3:
                Require(hasLength, "Llama3 needs OriginalMaxPositions.");
                Require(o.LowFrequencyFactor > 0 && o.HighFrequencyFactor > o.LowFrequencyFactor, "Llama3 needs 0 < LowFrequencyFactor < HighFrequencyFactor.");
                break;
            case RotaryScaling.LongRope:
                Require(hasLength, "LongRope needs OriginalMaxPositions.");
                Require(o.ShortFactors.Count == RotaryDim / 2 && o.LongFactors.Count == RotaryDim / 2,
                    $"LongRope needs {RotaryDim / 2} short and long factors for {RotaryDim} channels, got {o.ShortFactors.Count} and {o.LongFactors.Count}.");
                Require(o.ShortFactors.Concat(o.LongFactors).All(f => f > 0), "LongRope needs positive factors.");
                break;
        }
    }

    private double[] FrequenciesAt(long positions)
    {
        if (positions <= Border) return _plain;
        if (Options.Scaling == RotaryScaling.LongRope) return Divided(Options.LongFactors);
        double stretch = Options.Factor * positions / Options.MaxPositions!.Value - (Options.Factor - 1);
        return Powers(Options.Theta * Math.Pow(stretch, RotaryDim / (RotaryDim - 2.0)));
    }

    private double[] Powers(double theta)
    {
        var powers = new double[RotaryDim / 2];
        for (int i = 0; i < powers.Length; i++) powers[i] = i == 0 ? 1 : Math.Pow(theta, -2.0 * i / RotaryDim);
        return powers;
    }

    private double[] Divided(IReadOnlyList<double> divisors)
    {
        double[] frequencies = Powers(Options.Theta);
        for (int i = 0; i < frequencies.Length; i++) frequencies[i] /= divisors[i];
        return frequencies;
    }

    private double[] Yarn()
    {
        double trained = (Options.OriginalMaxPositions ?? Options.MaxPositions)!.Value;
        double low = PairOfTurns(Options.BetaFast, trained), high = PairOfTurns(Options.BetaSlow, trained);
        if (Options.Truncate) (low, high) = (Math.Floor(low), Math.Ceiling(high));
        (low, high) = (Math.Max(low, 0), Math.Min(high, RotaryDim - 1));
        if (low == high) high += 0.001;

        double[] frequencies = Powers(Options.Theta);
        for (int i = 0; i < frequencies.Length; i++)
        {
            double stretched = Math.Clamp((i - low) / (high - low), 0, 1);          // the share of this pair that is stretched
            frequencies[i] = (1 - stretched) * frequencies[i] + stretched * frequencies[i] / Options.Factor;
        }
        return frequencies;
    }

    /// <summary>The pair, as a fraction, that makes so many turns over the trained length.</summary>
    private double PairOfTurns(double turns, double trained) => RotaryDim * Math.Log(trained / (turns * 2 * Math.PI)) / (2 * Math.Log(Options.Theta));

    private double Llama3(double frequency)
    {
        double trained = (Options.OriginalMaxPositions ?? Options.MaxPositions)!.Value, turns = trained * frequency / (2 * Math.PI);
        double kept = Math.Clamp((turns - Options.LowFrequencyFactor) / (Options.HighFrequencyFactor - Options.LowFrequencyFactor), 0, 1);
        return (1 - kept) * frequency / Options.Factor + kept * frequency;
    }

    private double FindMultiplier()
    {
        if (Options.Scaling is not (RotaryScaling.Yarn or RotaryScaling.LongRope)) return 1;
        if (Options.AttentionFactor is double given) return given;
        if (Options.Scaling == RotaryScaling.Yarn)
            return Options is { Mscale: > 0, MscaleAllDim: > 0 } ? YarnScale(Options.Mscale.Value) / YarnScale(Options.MscaleAllDim.Value) : YarnScale(1);
        double trained = (Options.OriginalMaxPositions ?? Options.MaxPositions)!.Value;
        Require(Options.Factor == 1 || trained > 1, "LongRope with a factor needs a trained length above 1.");
        return Options.Factor == 1 ? 1 : Math.Sqrt(1 + Math.Log(Options.Factor) / Math.Log(trained));
    }

    private double YarnScale(double weight) => 0.1 * weight * Math.Log(Options.Factor) + 1;

    private Table Build(double[] frequencies, long rows)
    {
        long pairs = frequencies.Length;
        var cosine = new float[checked(rows * pairs)];
        var sine = new float[cosine.Length];
        for (long p = 0; p < rows; p++)
        for (long i = 0; i < pairs; i++)
        {
            (double s, double c) = Math.SinCos(p * frequencies[i]);
            (cosine[p * pairs + i], sine[p * pairs + i]) = (Rounded((float)(c * Multiplier)), Rounded((float)(s * Multiplier)));
        }
        return new Table(TensorScope.Release(Tensor.From<float>(cosine, [rows, pairs], _device)), TensorScope.Release(Tensor.From<float>(sine, [rows, pairs], _device)));
    }

    private float Rounded(float x) => Options.HasRoundedTables ? (float)(BFloat16)x : x;

    private sealed class Table(Tensor cosine, Tensor sine) : IDisposable
    {
        public Tensor Cosine { get; } = cosine;
        public Tensor Sine { get; } = sine;
        public long Rows => Cosine.Shape[0];

        public void Dispose()
        {
            Cosine.Dispose();
            Sine.Dispose();
        }
    }
}
