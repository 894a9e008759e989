using ZEngine.Distributed;

namespace ZEngine.Tests.Distributed;

/// <summary>Collectives against sums worked out here, on every transport, for 1 to 4 ranks.</summary>
public sealed class CollectiveTests
{
    public static TheoryData<string, int> All { get; } = [.. from transport in (string[])["threads", "tcp"] from size in (int[])[1, 2, 3, 4] select new TheoryDataRow<string, int>(transport, size)];

    private static readonly long[] Sizes = [0, 1, 2, 3, 4, 5, 7, 1000, 16385, 1_000_003];

    /// <summary>Element i of a rank: bits that leave no exact sums.</summary>
    private static float Value(int rank, long i) => (float)(((new RandomStream(77 + (ulong)rank).Bits(i) & 0xFFFFFF) - (double)0x800000) / 1e6);

    /// <summary>The documented order, written as the words say it: parted at the largest power of two below n.</summary>
    private static float Tree(ReadOnlySpan<float> values)
    {
        if (values.Length == 1) return values[0];
        int middle = 1;
        while (2 * middle < values.Length) middle *= 2;
        return Tree(values[..middle]) + Tree(values[middle..]);
    }

    private static float Expected(int size, long i) => Tree([.. Enumerable.Range(0, size).Select(rank => Value(rank, i))]);

    private static Tensor Filled(int rank, long count) => Tensor.From<float>([.. Enumerable.Range(0, (int)count).Select(i => Value(rank, i))], [count], Device.Cpu);

    [Theory, MemberData(nameof(All))]
    public void All_reduce_is_the_tree_of_the_ranks_bit_for_bit(string transport, int size) => Worlds.Run(transport, size, world =>
    {
        foreach (long count in Sizes)
        {
            using Tensor x = Filled(world.Rank, count);
            world.AllReduce(x);
            float[] got = x.ToArray<float>();
            for (long i = 0; i < count; i += count > 20000 ? 97 : 1) Assert.Equal(Expected(size, i), got[i]);
        }
    });

    [Theory, MemberData(nameof(All))]
    public void Reduce_scatter_and_all_gather_give_the_bits_of_all_reduce(string transport, int size) => Worlds.Run(transport, size, world =>
    {
        foreach (long[] counts in (long[][])[[.. Enumerable.Range(0, size).Select(r => 5L * r)], [.. Enumerable.Range(0, size).Select(r => r == 0 ? 1_500_001L : 3)], [.. Enumerable.Repeat(0L, size)]])
        {
            using Tensor source = Filled(world.Rank, counts.Sum()), part = Tensor.Empty([counts[world.Rank]], DType.Float32, Device.Cpu), gathered = Tensor.Empty([counts.Sum()], DType.Float32, Device.Cpu);
            world.ReduceScatter(source, part, counts);
            world.AllGather(part, gathered, counts);
            world.AllReduce(source);
            Assert.Equal(source.ToArray<float>(), gathered.ToArray<float>());
        }
    });

    [Theory, MemberData(nameof(All))]
    public void Every_type_is_reduced(string transport, int size) => Worlds.Run(transport, size, world =>
    {
        const int Count = 40_000;                              // beyond the border between the two ways of an all-reduce
        float[][] values = [.. Enumerable.Range(0, size).Select(rank => Enumerable.Range(0, Count).Select(i => Value(rank, i)).ToArray())];
        using Tensor brain = Tensor.From<BFloat16>([.. values[world.Rank].Select(x => (BFloat16)x)], [Count], Device.Cpu), half = Tensor.From<Half>([.. values[world.Rank].Select(x => (Half)x)], [Count], Device.Cpu);
        using Tensor max = Tensor.From<float>(values[world.Rank], [Count], Device.Cpu), ints = Tensor.From<int>([.. values[world.Rank].Select(x => (int)(x * 1000))], [Count], Device.Cpu), longs = Tensor.From<long>([.. values[world.Rank].Select(x => (long)(x * 1e12))], [Count], Device.Cpu);
        using Tensor bytes = Tensor.From<byte>([.. values[world.Rank].Select(x => (byte)(Math.Abs(x) * 10))], [Count], Device.Cpu), min = Tensor.From<sbyte>([.. values[world.Rank].Select(x => (sbyte)(x * 10))], [Count], Device.Cpu);
        world.AllReduce(brain);
        world.AllReduce(half);
        world.AllReduce(max, ReduceOperation.Max);
        world.AllReduce(ints);
        world.AllReduce(longs);
        world.AllReduce(bytes, ReduceOperation.Max);
        world.AllReduce(min, ReduceOperation.Min);
        for (int i = 0; i < Count; i += 41)
        {
            float[] own = [.. values.Select(rank => rank[i])];
            Assert.Equal(((BFloat16)Tree([.. own.Select(x => (float)(BFloat16)x)])).Bits, brain.ToArray<BFloat16>()[i].Bits);
            Assert.Equal((Half)Tree([.. own.Select(x => (float)(Half)x)]), half.ToArray<Half>()[i]);
            Assert.Equal(own.Max(), max.ToArray<float>()[i]);
            Assert.Equal(own.Sum(x => (int)(x * 1000)), ints.ToArray<int>()[i]);
            Assert.Equal(own.Sum(x => (long)(x * 1e12)), longs.ToArray<long>()[i]);
            Assert.Equal(own.Max(x => (byte)(Math.Abs(x) * 10)), bytes.ToArray<byte>()[i]);
            Assert.Equal(own.Min(x => (sbyte)(x * 10)), min.ToArray<sbyte>()[i]);
        }
    });

    [Theory, MemberData(nameof(All))]
    public void Moves_what_it_is_given(string transport, int size) => Worlds.Run(transport, size, world =>
    {
        int rank = world.Rank;
        long[] to = [.. Enumerable.Range(0, size).Select(peer => (long)(10 * rank + peer))], from = [.. Enumerable.Range(0, size).Select(peer => (long)(10 * peer + rank))];
        using Tensor parts = Tensor.From<int>([.. to.SelectMany((count, peer) => Enumerable.Repeat(100 * rank + peer, (int)count))], [to.Sum()], Device.Cpu), taken = Tensor.Empty([from.Sum()], DType.Int32, Device.Cpu);
        world.AllToAll(parts, taken, to, from);
        Assert.Equal(from.SelectMany((count, peer) => Enumerable.Repeat(100 * peer + rank, (int)count)), taken.ToArray<int>());

        for (int root = 0; root < size; root++)
        {
            using Tensor told = Tensor.From<int>([rank, 7], [2], Device.Cpu);
            world.Broadcast(told, root);
            Assert.Equal([root, 7], told.ToArray<int>());
        }
        if (size > 1)
        {
            using Tensor own = Tensor.From<int>([rank], [1], Device.Cpu), other = Tensor.Empty([1], DType.Int32, Device.Cpu);
            if (rank % 2 == 0) world.Send(own, (rank + 1) % size);
            world.Receive(other, (rank + size - 1) % size);
            if (rank % 2 == 1) world.Send(own, (rank + 1) % size);
            Assert.Equal((rank + size - 1) % size, other.ToArray<int>()[0]);
        }
        world.Barrier();
        Assert.Equal(Enumerable.Range(0, size).Select(i => $"rank {i} ä{new string('x', i)}"), world.GatherText($"rank {rank} ä{new string('x', rank)}"));
    });

    [Theory, MemberData(nameof(All))]
    public void Groups_of_a_split_work_side_by_side(string transport, int size) => Worlds.Run(transport, size, world =>
    {
        using Communicator? parity = world.Split(world.Rank % 2, key: -world.Rank);
        int[] members = [.. Enumerable.Range(0, size).Where(rank => rank % 2 == world.Rank % 2).Reverse()];
        Assert.Equal((members.Length, Array.IndexOf(members, world.Rank)), (parity!.Size, parity.Rank));
        Assert.Equal(members, parity.Gather(world.Rank));
        Assert.Equal(world.Rank == 0, world.Split(world.Rank == 0 ? 3 : -1) is not null);
        Assert.Equal(members, parity.Split(0)!.Gather(world.Rank));
    });

    [Theory, MemberData(nameof(All))]
    public void What_was_begun_comes_in_order(string transport, int size) => Worlds.Run(transport, size, world =>
    {
        Tensor[] pieces = [.. Enumerable.Range(0, 20).Select(i => Tensor.From<float>([.. Enumerable.Repeat((float)i, 3000 * (i + 1))], [3000 * (i + 1)], Device.Cpu))];
        CollectiveWork[] works = [.. pieces.Select(piece => world.BeginAllReduce(piece))];
        Assert.Equal(Enumerable.Repeat(5, size), world.Gather(5));                            // waits its turn behind what was begun
        foreach (CollectiveWork work in works) work.Wait();
        for (int i = 0; i < pieces.Length; i++) Assert.All(pieces[i].ToArray<float>(), value => Assert.Equal(i * size, value));
        foreach (Tensor piece in pieces) piece.Dispose();
    });

    [Fact]
    public void A_sum_that_does_not_fit_is_an_error() =>
        Assert.Throws<OverflowException>(() => Worlds.Run("threads", 2, world =>
        {
            using Tensor x = Tensor.From<int>([int.MaxValue], [1], Device.Cpu);
            world.AllReduce(x);
        }));

    [Theory, InlineData(3), InlineData(6), InlineData(12), InlineData(24)]
    public void Ranks_that_sum_shards_in_the_same_tree_give_the_same_bits(int size)
    {
        const int Shards = 24;                                 // each rank has a power of two of them
        float[] values = [.. Enumerable.Range(0, Shards).Select(i => Value(i, 3))];
        float[] partial = [.. values.Chunk(Shards / size).Select(own => Tree(own))];
        Assert.Equal(Tree(values), Tree(partial));
    }
}
