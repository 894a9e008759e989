namespace ZEngine.Models;

/// <summary>Chooses tokens from logits; keeps the tokens seen, for the repetition penalty. One per text.</summary>
internal sealed class Sampler
{
    private readonly SamplingOptions _options;
    private readonly RandomStream _random;
    private readonly HashSet<int> _seen = [];
    private readonly float[] _logits;
    private readonly int[] _order;
    private readonly double[] _weights;
    private long _drawn;

    public Sampler(SamplingOptions options, int vocabularySize)
    {
        options.Validate();
        _options = options;
        _random = new RandomStream(options.Seed, RandomStream.Of("sampling"));
        (_logits, _order, _weights) = (new float[vocabularySize], new int[vocabularySize], new double[vocabularySize]);
    }

    public void Remember(ReadOnlySpan<int> tokens)
    {
        if (_options.RepetitionPenalty == 1) return;
        foreach (int token in tokens) _seen.Add(token);
    }

    /// <exception cref="NotFiniteNumberException">A logit is not a number, or the largest is infinite: the model's weights or state are broken.</exception>
    public int Next(ReadOnlySpan<float> logits)
    {
        logits.CopyTo(_logits);
        for (int token = 0; token < _logits.Length; token++)
            if (float.IsNaN(_logits[token])) throw new NotFiniteNumberException($"Sampler: the logit of token {token} is NaN; the model's weights are broken.");
        foreach (int token in _seen) _logits[token] = _logits[token] > 0 ? _logits[token] / _options.RepetitionPenalty : _logits[token] * _options.RepetitionPenalty;
        float largest = _logits[Likeliest(_logits)];
        if (!float.IsFinite(largest)) throw new NotFiniteNumberException($"Sampler: the largest logit is {(largest > 0 ? "" : "-")}Infinity; the model's weights are broken.");
        int chosen = _options.Temperature == 0 ? Likeliest(_logits) : Draw();
        Remember([chosen]);
        return chosen;
    }

    private static int Likeliest(ReadOnlySpan<float> logits)
    {
        int best = 0;
        for (int token = 1; token < logits.Length; token++) if (logits[token] > logits[best]) best = token;
        return best;
    }

    private int Draw()
    {
        int kept = KeepLikely();
        double total = 0;
        for (int i = 0; i < kept; i++) total += _weights[i];
        (uint a, uint b, _, _) = _random.Block((ulong)_drawn++);
        double mark = (((ulong)a << 32 | b) >> 11) * (1.0 / (1UL << 53)) * total;
        for (int i = 0; i < kept - 1; i++)
        {
            mark -= _weights[i];
            if (mark < 0) return _order[i];
        }
        return _order[kept - 1];
    }

    /// <summary>Fills order and weights with the tokens that pass all filters, likeliest first, and returns how many there are.</summary>
    private int KeepLikely()
    {
        int count = _logits.Length;
        for (int token = 0; token < count; token++) _order[token] = token;
        bool needsOrder = _options.TopK > 0 || _options.TopP < 1 || _options.MinP > 0;
        if (needsOrder) Array.Sort(_order, (x, y) => _logits[x] == _logits[y] ? x.CompareTo(y) : _logits[y].CompareTo(_logits[x]));
        int kept = _options.TopK > 0 ? Math.Min(count, _options.TopK) : count;
        double max = needsOrder ? _logits[_order[0]] : _logits[Likeliest(_logits)], total = 0;
        for (int i = 0; i < kept; i++) total += _weights[i] = Math.Exp((_logits[_order[i]] - max) / _options.Temperature);
        if (_options.TopP < 1)
        {
            double reached = 0;
            for (int i = 0; i < kept; i++)
            {
                reached += _weights[i];
                if (reached >= _options.TopP * total) kept = i + 1;
            }
        }
        if (_options.MinP > 0)
            while (kept > 1 && _weights[kept - 1] < _options.MinP * _weights[0]) kept--;
        return kept;
    }
}
