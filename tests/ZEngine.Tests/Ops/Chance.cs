using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Ops;

/// <summary>Chooses sizes and options of a case, for a seed always the same.</summary>
internal sealed class Chance(int seed)
{
    private readonly Noise _noise = new((ulong)seed * 7919 + 1);

    public bool Flag() => _noise.Uniform() < 0.5;

    public T Of<T>(params T[] choices) => choices[(int)(_noise.Uniform() * choices.Length)];

    /// <summary>From low to high, inclusive.</summary>
    public int Range(int low, int high) => low + (int)(_noise.Uniform() * (high - low + 1));

    /// <summary>Boundaries of two to four packed sequences, none of them empty.</summary>
    public int[] Boundaries(int length)
    {
        int sequences = Math.Min(Range(2, 4), length);
        var cuts = new SortedSet<int> { 0, length };
        while (cuts.Count <= sequences) cuts.Add(Range(1, length - 1));
        return [.. cuts];
    }
}
