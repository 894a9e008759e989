using System.Numerics;

namespace ZEngine.Training;

/// <summary>A pseudo-random order of the numbers 0 to <see cref="Count"/> - 1, worked out element by element: nothing is stored.</summary>
/// <remarks>
/// A Feistel network over the smallest even number of bits that holds the count, with Philox as round function; a value beyond the
/// count walks on along its cycle until it is inside (Black and Rogaway 2002, Ciphers with arbitrary finite domains, section 3).
/// </remarks>
public sealed class Permutation
{
    private const int Rounds = 8;

    private readonly RandomStream[] _rounds = new RandomStream[Rounds];
    private readonly int _halfBits;

    /// <summary>The order for a seed and a number within the seed, such as the epoch.</summary>
    public Permutation(long count, ulong seed, ulong epoch)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(count, 1);
        Count = count;
        int bits = 64 - BitOperations.LeadingZeroCount((ulong)(count - 1));
        _halfBits = Math.Max(1, (bits + 1) / 2);
        ulong name = RandomStream.Of("ZEngine.Training.Permutation");
        for (int round = 0; round < Rounds; round++) _rounds[round] = new RandomStream(seed, name + epoch * Rounds + (ulong)round);
    }

    /// <summary>How many numbers there are.</summary>
    public long Count { get; }

    /// <summary>The number that stands at a place.</summary>
    public long this[long place]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfNegative(place);
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(place, Count);
            ulong value = (ulong)place;
            do value = Encrypt(value);
            while (value >= (ulong)Count);
            return (long)value;
        }
    }

    private ulong Encrypt(ulong value)
    {
        ulong mask = (1UL << _halfBits) - 1;
        (ulong left, ulong right) = (value >> _halfBits, value & mask);
        foreach (RandomStream round in _rounds)
        {
            (uint a, _, _, _) = round.Block(right);
            (left, right) = (right, left ^ (a & mask));
        }
        return left << _halfBits | right;
    }
}
