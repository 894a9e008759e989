namespace ZEngine.Tests.Core;

/// <summary>Philox4x32-10 and what is made of its bits.</summary>
public sealed class RandomStreamTests
{
    /// <summary>The known answers that come with Random123 (kat_vectors, philox4x32 10).</summary>
    [Theory]
    [InlineData(0UL, 0UL, 0UL, 0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U)]
    [InlineData(ulong.MaxValue, ulong.MaxValue, ulong.MaxValue, 0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU)]
    [InlineData(0x299f31d0a4093822UL, 0x0370734413198a2eUL, 0x85a308d3243f6a88UL, 0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U)]
    public void Block_equals_the_known_answer(ulong seed, ulong stream, ulong counter, uint a, uint b, uint c, uint d) =>
        Assert.Equal((a, b, c, d), new RandomStream(seed, stream).Block(counter));

    [Fact]
    public void Bits_are_the_words_of_the_blocks_in_order()
    {
        var random = new RandomStream(5, 6);
        (uint a, uint b, uint c, uint d) = random.Block(1UL << 33);
        Assert.Equal([a, b, c, d], Enumerable.Range(0, 4).Select(i => random.Bits((1L << 35) + i)));
    }

    [Fact]
    public void Names_make_streams()
    {
        Assert.Equal(14695981039346656037UL, RandomStream.Of(""));
        Assert.Equal(0xaf63dc4c8601ec8cUL, RandomStream.Of("a"));              // FNV-1a of one byte 'a'
        Assert.Equal(1000, Enumerable.Range(0, 1000).Select(i => RandomStream.Of($"layers.{i}.weight")).Distinct().Count());
    }

    [Fact]
    public void Uniform_numbers_are_even_and_below_one()
    {
        const int count = 1 << 20, bins = 256;
        var random = new RandomStream(11);
        var counts = new int[bins];
        for (int i = 0; i < count; i++)
        {
            float u = random.Uniform(i);
            Assert.InRange(u, 0, 1 - 1f / (1 << 24));
            counts[(int)(u * bins)]++;
        }
        double expected = (double)count / bins, chi2 = counts.Sum(n => (n - expected) * (n - expected) / expected);
        Assert.InRange(chi2, 255 - 5 * 22.6, 255 + 5 * 22.6);                 // 255 degrees of freedom, σ = √510
    }

    [Fact]
    public void Normal_numbers_have_the_moments_of_the_normal_distribution()
    {
        const int count = 1 << 20;
        var random = new RandomStream(12, 3);
        double sum = 0, square = 0, cube = 0, fourth = 0, pairs = 0, within = 0;
        for (int i = 0; i < count; i++)
        {
            double x = random.Normal(i);
            sum += x;
            square += x * x;
            cube += x * x * x;
            fourth += x * x * x * x;
            pairs += x * random.Normal(i + 1);
            within += Math.Abs(x) < 1 ? 1 : 0;
        }
        double sigma = 1 / Math.Sqrt(count);
        Assert.InRange(sum / count, -5 * sigma, 5 * sigma);
        Assert.InRange(square / count, 1 - 5 * Math.Sqrt(2) * sigma, 1 + 5 * Math.Sqrt(2) * sigma);
        Assert.InRange(cube / count, -5 * Math.Sqrt(15) * sigma, 5 * Math.Sqrt(15) * sigma);
        Assert.InRange(fourth / count, 3 - 5 * Math.Sqrt(96) * sigma, 3 + 5 * Math.Sqrt(96) * sigma);
        Assert.InRange(pairs / count, -5 * sigma, 5 * sigma);
        Assert.InRange(within / count, 0.6826895 - 5 * 0.4655 * sigma, 0.6826895 + 5 * 0.4655 * sigma);
    }

    [Fact]
    public void Streams_and_seeds_are_independent()
    {
        const int count = 1 << 18;
        RandomStream[] streams = [new(1, 0), new(1, 1), new(2, 0), new(1UL << 32, 0), new(1, 1UL << 32)];
        for (int i = 0; i < streams.Length; i++)
        for (int j = 0; j < i; j++)
        {
            double correlation = 0;
            for (int k = 0; k < count; k++) correlation += (streams[i].Uniform(k) - 0.5) * (streams[j].Uniform(k) - 0.5) * 12;
            Assert.InRange(correlation / count, -5 / Math.Sqrt(count), 5 / Math.Sqrt(count));
        }
    }

    [Fact]
    public void Below_is_even_and_in_range()
    {
        var random = new RandomStream(4);
        var counts = new int[7];
        for (int i = 0; i < 70000; i++) counts[random.Below(i, 7)]++;
        Assert.All(counts, n => Assert.InRange(n, 10000 - 5 * 93, 10000 + 5 * 93));
        Assert.Equal(0, random.Below(3, 1));
        Assert.InRange(random.Below(3, long.MaxValue), 0, long.MaxValue - 1);
        Assert.Throws<ArgumentOutOfRangeException>(() => random.Below(0, 0));
    }
}
