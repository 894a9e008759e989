namespace ZEngine;

/// <summary>Counter-based random numbers, Philox4x32-10: a number depends on the seed, the stream and its index, and on nothing else.</summary>
/// <remarks>
/// So results do not depend on threads, on devices or on the order of calls.
/// Source: Salmon, Moraes, Dror and Shaw 2011, Parallel random numbers: as easy as 1, 2, 3, section 4.
/// </remarks>
/// <param name="seed">The run's seed: the key of the generator.</param>
/// <param name="stream">Which of 2^64 independent sequences of the seed.</param>
public readonly struct RandomStream(ulong seed, ulong stream = 0)
{
    /// <summary>The run's seed.</summary>
    public ulong Seed { get; } = seed;

    /// <summary>Which sequence of the seed.</summary>
    public ulong Stream { get; } = stream;

    /// <summary>A stream number for a name: FNV-1a over its UTF-16 code units.</summary>
    public static ulong Of(ReadOnlySpan<char> name)
    {
        ulong hash = 14695981039346656037;
        foreach (char c in name) hash = (hash ^ c) * 1099511628211;
        return hash;
    }

    /// <summary>Four 32-bit numbers of one counter.</summary>
    public (uint, uint, uint, uint) Block(ulong counter)
    {
        (uint a, uint b, uint c, uint d) = ((uint)counter, (uint)(counter >> 32), (uint)Stream, (uint)(Stream >> 32));
        (uint key0, uint key1) = ((uint)Seed, (uint)(Seed >> 32));
        for (int round = 0; round < 10; round++)
        {
            ulong p = 0xD2511F53UL * a, q = 0xCD9E8D57UL * c;
            (a, b, c, d) = ((uint)(q >> 32) ^ b ^ key0, (uint)q, (uint)(p >> 32) ^ d ^ key1, (uint)p);
            key0 += 0x9E3779B9;
            key1 += 0xBB67AE85;
        }
        return (a, b, c, d);
    }

    /// <summary>The 32 random bits at an index.</summary>
    public uint Bits(long index)
    {
        (uint a, uint b, uint c, uint d) = Block((ulong)index >> 2);
        return (index & 3) switch { 0 => a, 1 => b, 2 => c, _ => d };
    }

    /// <summary>The number in [0, 1) at an index: 24 random bits.</summary>
    public float Uniform(long index) => Uniform(Bits(index));

    /// <summary>The standard normal number at an index (Box and Muller 1958; two counters' words make two numbers).</summary>
    public float Normal(long index)
    {
        (double radius, double angle) = Polar(index >> 1);
        return (float)(radius * ((index & 1) == 0 ? Math.Cos(angle) : Math.Sin(angle)));
    }

    /// <summary>The numbers 2·pair and 2·pair + 1 of <see cref="Normal"/>.</summary>
    internal (float, float) Normals(long pair)
    {
        (double radius, double angle) = Polar(pair);
        return ((float)(radius * Math.Cos(angle)), (float)(radius * Math.Sin(angle)));
    }

    /// <summary>The numbers 4·block to 4·block + 3 of <see cref="Uniform(long)"/>.</summary>
    internal (float, float, float, float) Uniforms(long block)
    {
        (uint a, uint b, uint c, uint d) = Block((ulong)block);
        return (Uniform(a), Uniform(b), Uniform(c), Uniform(d));
    }

    /// <summary>An unbiased integer in [0, bound) from 64 bits at an index (bias below 2^-32 for bounds below 2^32).</summary>
    public long Below(long index, long bound)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(bound, 1);
        (uint a, uint b, _, _) = Block((ulong)index);
        return (long)Math.BigMul((ulong)a << 32 | b, (ulong)bound, out _);
    }

    private static float Uniform(uint bits) => (bits >> 8) * (1f / (1 << 24));

    private (double Radius, double Angle) Polar(long pair)
    {
        (uint a, uint b, uint c, uint d) = Block((ulong)pair);
        ulong bits = (ulong)a << 32 | b;
        return (Math.Sqrt(-2 * Math.Log(((bits >> 11) + 1) * (1.0 / (1UL << 53)))), 2 * Math.PI * (((ulong)c << 32 | d) >> 11) * (1.0 / (1UL << 53)));
    }
}
