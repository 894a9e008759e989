using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>Orders are permutations, parts do not touch, and every place can be gone to.</summary>
public sealed class DataTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(5)]
    [InlineData(64)]
    [InlineData(65)]
    [InlineData(10_007)]
    public void Order_is_a_permutation(long count)
    {
        var seen = new HashSet<long>();
        var order = new Permutation(count, seed: 1, epoch: 2);
        for (long place = 0; place < count; place++) Assert.InRange(order[place], 0, count - 1);
        for (long place = 0; place < count; place++) Assert.True(seen.Add(order[place]));
        Assert.Throws<ArgumentOutOfRangeException>(() => order[count]);
    }

    [Fact]
    public void Orders_of_seeds_and_epochs_look_independent()
    {
        const int Count = 4096;
        Permutation[] orders = [new(Count, 0, 0), new(Count, 0, 1), new(Count, 1, 0)];
        for (int a = 0; a < orders.Length; a++)
        {
            // A random order correlates with the identity and with others by about 1 / √count.
            Assert.InRange(Correlation(place => place, place => orders[a][place]), -0.08, 0.08);
            Assert.InRange(Correlation(place => orders[a][place], place => orders[a][(place + 1) % Count]), -0.08, 0.08);
            for (int b = 0; b < a; b++) Assert.InRange(Correlation(place => orders[a][place], place => orders[b][place]), -0.08, 0.08);
        }

        static double Correlation(Func<long, double> x, Func<long, double> y)
        {
            double mean = (Count - 1) / 2.0, sum = 0;
            for (long place = 0; place < Count; place++) sum += (x(place) - mean) * (y(place) - mean);
            return sum / (Count * ((double)Count * Count - 1) / 12);
        }
    }

    [Fact]
    public void Huge_orders_cost_nothing_and_stay_inside()
    {
        var order = new Permutation((1L << 52) + 1, 3, 4);
        for (long i = 0; i < 1000; i++) Assert.InRange(order[i * ((1L << 52) / 1000)], 0, 1L << 52);
    }

    [Theory]
    [InlineData(1000, 64, 5)]
    [InlineData(999, 64, 20)]
    [InlineData(64, 16, 3)]
    [InlineData(130, 64, 20)]
    public void Parts_cover_everything_once(int count, int block, int every)
    {
        var split = new DataSplit(every, block, Seed: 3);
        var owner = new DataPart[count];
        foreach (DataPart part in (ReadOnlySpan<DataPart>)[DataPart.Train, DataPart.HeldOut])
        {
            foreach ((long start, long length) in split.Runs(part, count))
            {
                for (long i = start; i < start + length; i++)
                {
                    Assert.Equal(DataPart.All, owner[i]);
                    owner[i] = part;
                }
            }
        }
        Assert.DoesNotContain(DataPart.All, owner);
        Assert.Contains(DataPart.HeldOut, owner);
        Assert.Contains(DataPart.Train, owner);
    }

    [Fact]
    public void Windows_of_the_parts_share_no_token_and_one_epoch_shows_each_once()
    {
        TextTokens tokens = Counting(3000);
        var split = new DataSplit(4, 100, Seed: 9);
        TokenWindows train = new(tokens, 8, 1, DataPart.Train, split), heldOut = new(tokens, 8, 1, DataPart.HeldOut, split);
        HashSet<int> trained = Seen(train), held = Seen(heldOut);
        Assert.Empty(trained.Intersect(held));
        Assert.True(held.Count > 600 && trained.Count > 2000, $"{held.Count} and {trained.Count} tokens are seen");

        static HashSet<int> Seen(TokenWindows windows)
        {
            var starts = new HashSet<long>();
            var seen = new HashSet<int>();
            int[] inputs = new int[8], targets = new int[8];
            for (long place = 0; place < windows.EpochLength; place++)
            {
                Assert.True(starts.Add(windows.StartOf(place)));
                windows.Read(place, inputs, targets);
                Assert.Equal(inputs[1..], targets[..^1]);
                foreach (int token in (int[])[.. inputs, targets[^1]]) seen.Add(token);
            }
            Assert.NotEqual(windows.StartOf(0), windows.StartOf(windows.EpochLength));
            return seen;
        }
    }

    [Fact]
    public void Seeking_equals_reading_up_to_there_and_ranks_share_one_order()
    {
        var windows = new TokenWindows(Counting(2000), 10, 4);
        TokenStream straight = new(windows, 4), sought = new(new TokenWindows(Counting(2000), 10, 4), 4), rank0 = new(windows, 2, 0, 2), rank1 = new(windows, 2, 1, 2);
        for (int batch = 0; batch < 120; batch++)
        {
            long position = straight.Position;
            int[] batchTokens = Next(straight);
            sought.Seek(position);
            Assert.Equal(batchTokens, Next(sought));
            Assert.Equal(batchTokens, Next(rank0).Concat(Next(rank1)));
        }
        Assert.Equal(480, straight.Position);

        static int[] Next(TokenStream stream)
        {
            using TensorScope scope = TensorScope.Enter();
            (Tensor tokens, Tensor targets) = stream.Next(Device.Cpu);
            Assert.Equal([stream.Batch, 10], tokens.Shape.ToArray());
            Assert.Equal(tokens.ToArray<int>().Select(token => token + 1), targets.ToArray<int>());
            return tokens.ToArray<int>();
        }
    }

    [Fact]
    public void Mix_keeps_the_proportion_at_every_place_and_each_order()
    {
        TokenWindows fresh = new(Counting(500), 5, 1), old = new(Counting(900, 1000), 5, 2);
        var mix = new MixedSequences(fresh, 40, old, 60);
        (long first, long second) = (0, 0);
        int[] tokens = new int[5], targets = new int[5], expected = new int[5];
        for (long place = 0; place < 1000; place++)
        {
            (bool isSecond, long own) = mix.At(place);
            Assert.Equal(isSecond ? second++ : first++, own);
            Assert.InRange(second - 0.6 * (place + 1), -1, 1);
            mix.Read(place, tokens, targets);
            (isSecond ? old : fresh).Read(own, expected, targets);
            Assert.Equal(expected, tokens);
        }
        Assert.Equal((400, 600), (first, second));
        Assert.Equal(Math.Max((fresh.EpochLength * 10 + 3) / 4, (old.EpochLength * 10 + 5) / 6), mix.EpochLength);
    }

    [Fact]
    public void Text_files_are_read_as_bytes_or_through_a_tokenizer()
    {
        using var run = new RunFolder();
        string a = Path.Combine(run.Path, "a.txt"), b = Path.Combine(run.Path, "b.txt"), bad = Path.Combine(run.Path, "bad.txt");
        File.WriteAllBytes(a, [0xEF, 0xBB, 0xBF, (byte)'x', 0xC3, 0xA9]);
        File.WriteAllText(b, "yz");
        File.WriteAllBytes(bad, [(byte)'x', 0xFF]);
        using TextTokens bytes = TextTokens.FromFiles([a, b]), words = TextTokens.FromFiles([b, a], text => [.. text.Select(c => (int)c)], 1000, separator: 999);
        Assert.Equal([(int)'x', 0xC3, 0xA9, 'y', 'z'], All(bytes));
        Assert.Equal([(int)'y', 'z', 999, 'x', 'é', 999], All(words));
        Assert.Contains("not UTF-8 at byte 1", Assert.Throws<InvalidDataException>(() => TextTokens.FromFiles([bad], text => [1], 10)).Message, StringComparison.Ordinal);
        Assert.Equal("No text file was given.", Assert.Throws<InvalidDataException>(() => TextTokens.FromFiles([])).Message);
        Assert.Contains("token 121 at 0 is not from 0 to 99", Assert.Throws<ArgumentException>(() => TextTokens.FromFiles([b], text => [text[0]], 100)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Part_without_a_window_is_an_error()
    {
        var error = Assert.Throws<ArgumentException>(() => new TokenWindows(Counting(100), 64, 0, DataPart.HeldOut, new DataSplit(2, 50)));
        Assert.StartsWith("TokenWindows: the part HeldOut of 100 tokens has no window of 64 + 1 tokens (blocks of 50, one of 2 held out)", error.Message, StringComparison.Ordinal);
    }

    private static int[] All(TokenSource source)
    {
        var tokens = new int[source.Count];
        source.Read(0, tokens);
        return tokens;
    }

    private static TextTokens Counting(int count, int first = 0) => new([.. Enumerable.Range(first, count)], first + count);
}
