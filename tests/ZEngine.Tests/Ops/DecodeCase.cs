using System.Collections.Concurrent;
using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Ops;

/// <summary>Sequences of different lengths, and the next token of each: what a decode must give, worked out in double from its definition.</summary>
internal sealed record DecodeCase(int Heads, int Groups, int P, params int[] Lengths)
{
    public const int PageSize = 16;

    public int Window { get; init; }
    public float SoftCap { get; init; }
    public float? Scale { get; init; }
    public int Pairs { get; init; }
    public RotaryStyle Style { get; init; }
    public int Capacity { get; init; } = 96;
    public float Shift { get; init; }
    public ulong Seed { get; init; } = 1;

    public int Batch => Lengths.Length;

    public AttentionOptions Options => new(Scale: Scale, Window: Window, SoftCap: SoftCap);

    public override string ToString() => $"H {Heads}, G {Groups}, P {P}, lengths {string.Join(' ', Lengths)}, window {Window}, cap {SoftCap}, pairs {Pairs} {Style}";

    /// <summary>The query, key or value of a sequence's next token, or the keys or values before it: [1, L, heads, P].</summary>
    public float[] Values(ulong what, int b, int length, int heads)
    {
        var noise = new Noise(Seed + 1000 * what + (ulong)b);
        return [.. Enumerable.Range(0, length * heads * P).Select(_ => (float)noise.Normal() + (what is 0 or 1 or 3 ? Shift : 0))];
    }

    /// <summary>An empty cache, contiguous or with pages dealt out in a scattered order.</summary>
    public DecodeCache NewCache(Device device, DType dtype, bool isPaged)
    {
        if (!isPaged) return DecodeCache.Contiguous(device, dtype, Batch, Capacity, Groups, P);
        int perSequence = (Capacity + PageSize - 1) / PageSize, count = perSequence * Batch + 3;
        while (count % 7 == 0) count++;
        int[] table = [.. Enumerable.Range(0, perSequence * Batch).Select(i => (i * 7 + 2) % count)];
        Tensor keys = Tensor.Zeros([count, PageSize, Groups, P], dtype, device);
        return new(keys, Tensor.Zeros(keys.Shape, dtype, device), Tensor.Zeros([Batch], DType.Int64, device), Tensor.Zeros([Batch, Groups + 1], DType.Int32, device),
            Tensor.From<int>(table, [Batch, perSequence], device), dtype == DType.Int8 ? Tensor.Zeros([count, Groups, PageSize, 2], DType.Float32, device) : null);
    }

    /// <summary>A cache with every sequence's tokens in it.</summary>
    public DecodeCache Filled(Device device, DType activations, bool isPaged = false, bool isBytes = false)
    {
        DecodeCache cache = NewCache(device, isBytes ? DType.Int8 : activations, isPaged);
        for (int b = 0; b < Batch; b++)
        {
            if (Lengths[b] > 0) ZEngine.Ops.AppendKeyValues(Past(1, b, device, activations), Past(2, b, device, activations), cache.Slice(b, 1));
            if (Lengths[b] < 0) cache.Lengths.Slice(0, b, 1).CopyFrom<long>([Lengths[b]]);
        }
        return cache;
    }

    public DecodeRotary? Rotary(Device device)
    {
        if (Pairs == 0) return null;
        (float[] cosine, float[] sine) = Angles();
        return new(Tensor.From<float>(cosine, [Capacity, Pairs], device), Tensor.From<float>(sine, [Capacity, Pairs], device), Style);
    }

    /// <summary>The next token's tensors of all sequences, [B, 1, heads, P]; <paramref name="what"/> as in <see cref="Values"/>: 0 queries, 3 keys, 4 values.</summary>
    public Tensor Next(ulong what, Device device, DType dtype)
    {
        int heads = what == 0 ? Heads : Groups;
        return Tensor.From<float>([.. Enumerable.Range(0, Batch).SelectMany(b => Values(what, b, 1, heads))], [Batch, 1, heads, P], device).To(dtype);
    }

    /// <summary>One token of every sequence.</summary>
    public (float[] O, float[] Lse) Decode(Device device, DType dtype, DecodeCache cache)
    {
        using TensorScope scope = TensorScope.Enter();
        (Tensor o, Tensor lse) = ZEngine.Ops.AttentionDecode(Next(0, device, dtype), Next(3, device, dtype), Next(4, device, dtype), cache, Rotary(device), Options);
        return (o.To(DType.Float32).ToArray<float>(), lse.ToArray<float>());
    }

    /// <summary>o and lse of every sequence and head, over the keys and values [B, S, G, P] that the cache holds after the token.</summary>
    public (double[] O, double[] Lse) Expected(float[] keys, float[] values, int rows, Func<float, float> round)
    {
        var o = new double[Batch * Heads * P];
        var lse = new double[Batch * Heads];
        for (int b = 0; b < Batch; b++)
        for (int h = 0; h < Heads; h++)
        {
            int g = h / (Heads / Groups), n = Lengths[b] + 1, first = Window > 0 ? Math.Max(0, n - Window) : 0;
            double[] q = Rotated([.. Values(0, b, 1, Heads).Skip(h * P).Take(P).Select(round)], Lengths[b]);
            double sum = 0, most = double.NegativeInfinity;
            var scores = new double[Math.Max(0, n)];
            for (int j = first; j < n; j++)
            {
                double dot = 0;
                for (int p = 0; p < P; p++) dot += q[p] * keys[((b * rows + j) * Groups + g) * P + p];
                dot *= Scale ?? 1 / Math.Sqrt(P);
                scores[j] = SoftCap > 0 ? SoftCap * Math.Tanh(dot / SoftCap) : dot;
                most = Math.Max(most, scores[j]);
            }
            for (int j = first; j < n; j++) sum += Math.Exp(scores[j] - most);
            lse[b * Heads + h] = n > first ? most + Math.Log(sum) : double.NegativeInfinity;
            for (int j = first; j < n; j++)
            for (int p = 0; p < P; p++) o[(b * Heads + h) * P + p] += Math.Exp(scores[j] - most) / sum * values[((b * rows + j) * Groups + g) * P + p];
        }
        return (o, lse);
    }

    /// <summary>What the cache must hold after the token, [B, rows, G, P]: the tokens before it, and its rotated key or its value.</summary>
    public float[] Stored(bool isKey, int rows, Func<float, float> round)
    {
        var all = new float[Batch * rows * Groups * P];
        for (int b = 0; b < Batch; b++)
        {
            if (Lengths[b] < 0) continue;
            Values(isKey ? 1u : 2u, b, Lengths[b], Groups).Select(round).ToArray().CopyTo(all, b * rows * Groups * P);
            float[] own = [.. Values(isKey ? 3u : 4u, b, 1, Groups).Select(round)];
            for (int g = 0; g < Groups; g++)
            for (int p = 0; p < P; p++)
                all[((b * rows + Lengths[b]) * Groups + g) * P + p] = isKey ? (float)Rotated([.. own.Skip(g * P).Take(P)], Lengths[b])[p] : own[g * P + p];
        }
        return all;
    }

    public Tensor Past(ulong what, int b, Device device, DType dtype) => Tensor.From<float>(Values(what, b, Lengths[b], Groups), [1, Lengths[b], Groups, P], device).To(dtype);

    private static readonly ConcurrentDictionary<(int Capacity, int Pairs), (float[] Cosine, float[] Sine)> Tables = [];

    /// <summary>Of all positions, [capacity, pairs]; made once, for every row of keys is rotated by them.</summary>
    private (float[] Cosine, float[] Sine) Angles() => Tables.GetOrAdd((Capacity, Pairs), size =>
    {
        float[] Table(Func<double, double> f) => [.. Enumerable.Range(0, size.Capacity * size.Pairs).Select(i => (float)f(i / size.Pairs * Math.Pow(100, -(double)(i % size.Pairs) / size.Pairs)))];
        return (Table(Math.Cos), Table(Math.Sin));
    });

    private double[] Rotated(float[] x, int position)
    {
        double[] y = [.. x.Select(value => (double)value)];
        if (Pairs == 0 || position < 0) return y;
        (float[] cosine, float[] sine) = Angles();
        for (int i = 0; i < Pairs; i++)
        {
            (int a, int b) = Style == RotaryStyle.Half ? (i, i + Pairs) : (2 * i, 2 * i + 1);
            (double c, double s) = (cosine[position * Pairs + i], sine[position * Pairs + i]);
            (y[a], y[b]) = (x[a] * c - x[b] * s, x[b] * c + x[a] * s);
        }
        return y;
    }
}
