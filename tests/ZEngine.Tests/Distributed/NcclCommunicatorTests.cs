using System.Collections.Concurrent;
using System.Diagnostics;
using ZEngine.Cuda;
using ZEngine.Distributed;
using ZEngine.Interop;
using Op = ZEngine.Ops;

namespace ZEngine.Tests.Distributed;

/// <summary>Collectives between devices: what they give, in which order with other work, and that none hangs.</summary>
public sealed class NcclCommunicatorTests
{
    private static readonly TimeSpan Short = TimeSpan.FromMilliseconds(600);

    /// <summary>Whole numbers: their sums are exact in every type and order.</summary>
    private static float Value(int rank, long i) => (i * 7 + 3 * rank) % 11 - 4;

    private static Tensor Filled(int rank, long count, Device device, DType dtype = DType.Float32)
    {
        using TensorScope scope = TensorScope.Enter();
        return scope.Keep(Tensor.From<float>([.. Enumerable.Range(0, (int)count).Select(i => Value(rank, i))], [count], device).To(dtype));
    }

    private static float[] Read(Tensor x) => x.DType == DType.Float32 ? x.ToArray<float>() : x.To(DType.Float32).ToArray<float>();

    /// <summary>All that was given has ended; from now on a collective must not take long.</summary>
    private static void Shorten(NcclCommunicator world, Tensor x)
    {
        _ = x.ToArray<float>();
        Assert.True(SpinWait.SpinUntil(() => world.Recorder.Current is null, Worlds.Timeout));
        world.Timeout = Short;
    }

    [Theory, InlineData(1), InlineData(2), InlineData(3)]
    public void Reductions_are_those_of_all_ranks(int size) => InProcessNccl.Run(size, (world, device) =>
    {
        using TensorScope scope = TensorScope.Enter();
        foreach (DType dtype in (DType[])[DType.Float32, DType.BFloat16])
        foreach ((ReduceOperation operation, Func<IEnumerable<float>, float> of) in ((ReduceOperation, Func<IEnumerable<float>, float>)[])[(ReduceOperation.Sum, x => x.Sum()), (ReduceOperation.Max, x => x.Max()), (ReduceOperation.Min, x => x.Min())])
        foreach (long[] counts in (long[][])[[.. Enumerable.Repeat(6L, size)], [.. Enumerable.Range(0, size).Select(r => 5L * r)], [.. Enumerable.Range(0, size).Select(r => r == size - 1 ? 0L : 7)]])
        {
            float Expected(long i) => of(Enumerable.Range(0, size).Select(rank => Value(rank, i)));
            Tensor source = Filled(world.Rank, counts.Sum(), device, dtype), part = Tensor.Empty([counts[world.Rank]], dtype, device), all = Tensor.Empty([counts.Sum()], dtype, device);
            long start = counts.Take(world.Rank).Sum();
            world.ReduceScatter(source, part, counts, operation);
            Assert.Equal(Enumerable.Range(0, (int)part.Count).Select(i => Expected(start + i)), Read(part));
            world.AllGather(part, all, counts);
            Assert.Equal(Enumerable.Range(0, (int)all.Count).Select(i => Expected(i)), Read(all));
            // In place: each part where it belongs in the whole.
            Tensor own = source.Slice(0, start, counts[world.Rank]);
            world.ReduceScatter(source, own, counts, operation);
            world.AllGather(own, source, counts);
            Assert.Equal(Read(all), Read(source));
            Tensor again = Filled(world.Rank, counts.Sum(), device, dtype);
            world.AllReduce(again, operation);
            Assert.Equal(Read(all), Read(again));
        }
        Tensor ints = Tensor.From<int>([world.Rank, 100], [2], device), longs = Tensor.From<long>([1L << 40, world.Rank], [2], device);
        world.AllReduce(ints);
        world.AllReduce(longs);
        Assert.Equal([size * (size - 1) / 2, 100 * size], ints.ToArray<int>());
        Assert.Equal([(1L << 40) * size, size * (size - 1) / 2], longs.ToArray<long>());
    });

    [Theory, InlineData(1), InlineData(2), InlineData(3)]
    public void Moves_what_it_is_given(int size) => InProcessNccl.Run(size, (world, device) =>
    {
        using TensorScope scope = TensorScope.Enter();
        int rank = world.Rank;
        long[] to = [.. Enumerable.Range(0, size).Select(peer => (long)(rank == peer ? 4 : 10 * rank + peer))], from = [.. Enumerable.Range(0, size).Select(peer => (long)(rank == peer ? 4 : 10 * peer + rank))];
        Tensor parts = Tensor.From<int>([.. to.SelectMany((count, peer) => Enumerable.Repeat(100 * rank + peer, (int)count))], [to.Sum()], device), taken = Tensor.Empty([from.Sum()], DType.Int32, device);
        world.AllToAll(parts, taken, to, from);
        Assert.Equal(from.SelectMany((count, peer) => Enumerable.Repeat(100 * peer + rank, (int)count)), taken.ToArray<int>());
        for (int root = 0; root < size; root++)
        {
            Tensor told = Tensor.From<int>([rank, 7], [2], device);
            world.Broadcast(told, root);
            Assert.Equal([root, 7], told.ToArray<int>());
        }
        if (size > 1)
        {
            Tensor own = Tensor.From<int>([rank], [1], device), other = Tensor.Empty([1], DType.Int32, device);
            if (rank % 2 == 0) world.Send(own, (rank + 1) % size);
            world.Receive(other, (rank + size - 1) % size);
            if (rank % 2 == 1) world.Send(own, (rank + 1) % size);
            Assert.Equal((rank + size - 1) % size, other.ToArray<int>()[0]);
        }
        world.Barrier();
        Assert.Equal(Enumerable.Range(0, size).Select(i => $"rank {i}"), world.GatherText($"rank {rank}"));
        Tensor host = Tensor.From<float>([rank], [1], Device.Cpu);
        world.AllReduce(host, ReduceOperation.Max);
        Assert.Equal(size - 1, host.Item());
    });

    [Fact]
    public void Groups_of_a_split_work_side_by_side() => InProcessNccl.Run(4, (world, device) =>
    {
        using TensorScope scope = TensorScope.Enter();
        using Communicator? parity = world.Split(world.Rank % 2, key: -world.Rank);
        int[] members = [.. Enumerable.Range(0, 4).Where(rank => rank % 2 == world.Rank % 2).Reverse()];
        Assert.Equal((2, Array.IndexOf(members, world.Rank)), (parity!.Size, parity.Rank));
        Tensor all = Tensor.Empty([2], DType.Int32, device);
        parity.AllGather(Tensor.From<int>([world.Rank], [1], device), all);
        Assert.Equal(members, all.ToArray<int>());
        Assert.Equal(members, parity.Gather(world.Rank));
        Assert.Equal(world.Rank == 0, world.Split(world.Rank == 0 ? 3 : -1) is not null);
        world.AllReduce(all);                                  // the world goes on beside its groups
        Assert.Equal([10, 2], all.ToArray<int>());
    });

    [Fact]
    public void What_was_begun_is_there_after_the_wait_and_in_order_with_the_device() => InProcessNccl.Run(2, (world, device) =>
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor[] pieces = [.. Enumerable.Range(0, 12).Select(i => Op.Scale(Filled(0, 300 * (i + 1), device), i))];
        CollectiveWork[] works = [.. pieces.Select(piece => world.BeginAllReduce(piece))];
        Tensor beside = Op.Scale(Filled(0, 100, device), 3);
        for (int i = 0; i < works.Length; i++)
        {
            works[i].Wait();
            float[] twice = Op.Scale(pieces[i], 2).ToArray<float>();
            for (int k = 0; k < twice.Length; k++) Assert.Equal(4 * i * Value(0, k), twice[k]);
        }
        Assert.Equal(3 * Value(0, 5), beside.ToArray<float>()[5]);
    });

    [Theory, InlineData(1), InlineData(2), InlineData(3)]
    public void A_graph_has_its_collectives_again_at_every_replay(int size) => InProcessNccl.Run(size, (world, device) =>
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Filled(world.Rank, 40, device), parts = Tensor.Empty([40L * size], DType.Float32, device);
        void Step()
        {
            using TensorScope own = TensorScope.Enter();
            Tensor scaled = Op.Scale(x, 2);
            CollectiveWork work = world.BeginAllReduce(scaled);
            Tensor other = Op.Scale(x, 5);
            work.Wait();
            world.AllGather(Op.Add(scaled, other), parts);
        }
        Step();
        float[] once = parts.ToArray<float>();
        Assert.Equal(Enumerable.Range(0, size).SelectMany(rank => Enumerable.Range(0, 40).Select(i => 2 * Enumerable.Range(0, size).Sum(r => Value(r, i)) + 5 * Value(rank, i))), once);
        using CudaGraph graph = device.Capture(Step);
        for (int replay = 1; replay <= 3; replay++)
        {
            parts.Clear();
            x.CopyFrom<float>([.. Enumerable.Range(0, 40).Select(i => replay * Value(world.Rank, i))]);
            graph.Launch();
            Assert.Equal(once.Select(value => replay * value), parts.ToArray<float>());
        }
    });

    [Fact]
    public void Two_ranks_with_one_device_are_refused_with_a_table()
    {
        var e = Assert.Throws<WorldMismatchException>(() => InProcessNccl.Run(3, (_, _) => { }, ordinalOf: rank => Math.Max(1, rank)));
        Assert.StartsWith("Two ranks cannot have one device:", e.Message, StringComparison.Ordinal);
        Assert.Matches(@"0000:01:00 +rank 0-1", e.Message);
        Assert.DoesNotContain("0000:02", e.Message, StringComparison.Ordinal);
        e = Assert.Throws<WorldMismatchException>(() => InProcessNccl.Run(3, (_, _) => { }, ordinalOf: rank => rank / 2));
        Assert.Matches(@"0000:00:00 +rank 0-1", e.Message);
    }

    [Fact]
    public void Rank_that_does_not_come_ends_the_world_and_the_call_is_named()
    {
        var failures = new ConcurrentQueue<string>();
        var clock = Stopwatch.StartNew();
        using var hasEnded = new ManualResetEventSlim();
        Assert.ThrowsAny<Exception>(() => InProcessNccl.Run(3, (world, device) =>
        {
            using Tensor x = Filled(world.Rank, 10, device);
            world.AllReduce(x);
            Shorten(world, x);
            if (world.Rank == 2)
            {
                Assert.True(hasEnded.Wait(Worlds.Timeout, TestContext.Current.CancellationToken));
                return;
            }
            try
            {
                world.AllReduce(x);
                _ = x.ToArray<float>();                        // the device runs the sum: here a rank would wait for ever
                var e = Assert.Throws<CommunicatorException>(() => world.AllReduce(x));
                Assert.Contains("the world failed before: AllReduce of 10 Float32 (number 3 on the device)", e.Message, StringComparison.Ordinal);
                throw e;
            }
            finally
            {
                hasEnded.Set();
            }
        }, failures: failures));
        Assert.Contains(failures, reason => reason.Contains("AllReduce of 10 Float32 (number 3 on the device) has been running for", StringComparison.Ordinal));
        Assert.True(clock.Elapsed < Worlds.Timeout / 2);
    }

    [Fact]
    public void Leaving_while_a_rank_does_not_come_ends_too()
    {
        Assert.ThrowsAny<Exception>(() => InProcessNccl.Run(2, (world, device) =>
        {
            using Tensor x = Filled(world.Rank, 10, device);
            world.AllReduce(x);
            Shorten(world, x);
            if (world.Rank == 1) throw new TimeZoneNotFoundException("planted");
            world.AllReduce(x);                                // is queued; what follows is the end of the world
        }));
    }

    [Fact]
    public void Ranks_that_differ_are_named_where_they_compare_first()
    {
        var e = Assert.Throws<WorldMismatchException>(() => InProcessNccl.Run(2, (world, device) =>
        {
            world.IsChecked = true;
            using Tensor x = Filled(world.Rank, 10 + world.Rank, device), same = Filled(0, 3, device);
            world.Broadcast(same);
            world.AllReduce(x);
        }));
        Assert.Matches("collective +AllReduce of Float32, Sum, root -1, 11 elements +rank 1", e.Message);
    }

    [Fact]
    public void Graph_in_which_a_rank_does_not_come_ends_the_world()
    {
        var failures = new ConcurrentQueue<string>();
        using var hasEnded = new ManualResetEventSlim();
        InProcessNccl.Run(2, (world, device) =>
        {
            using Tensor x = Filled(world.Rank, 10, device);
            world.AllReduce(x);
            Shorten(world, x);
            using CudaGraph graph = device.Capture(() => world.AllReduce(x));
            if (world.Rank == 1)
            {
                Assert.True(hasEnded.Wait(Worlds.Timeout, TestContext.Current.CancellationToken));
                return;
            }
            graph.Launch();
            _ = x.ToArray<float>();
            Assert.NotNull(world.Failure);
            hasEnded.Set();
        }, failures: failures);
        Assert.Contains(failures, reason => reason.Contains("the host has been waiting for cuda:0", StringComparison.Ordinal));
    }

    [Fact]
    public void Error_that_NCCL_reports_ends_the_world()
    {
        var failures = new ConcurrentQueue<string>();
        Assert.ThrowsAny<Exception>(() => InProcessNccl.Run(2, (world, device) =>
        {
            using Tensor x = Filled(world.Rank, 10, device);
            world.AllReduce(x);
            _ = x.ToArray<float>();
            if (world.Rank == 1)
            {
                InProcessNccl.Break(world, 6);
                Assert.True(SpinWait.SpinUntil(() => world.Failure is not null, Worlds.Timeout));
            }
            // The reason is there before the host's world ends: barriers may still pass meanwhile.
            for (long begin = Environment.TickCount64; Environment.TickCount64 - begin < Worlds.Timeout.TotalMilliseconds;) world.Barrier();
        }, failures: failures));
        Assert.Contains(failures, reason => reason.Contains("error 6 (remote process exited", StringComparison.Ordinal));
    }

    [Fact]
    public void Tensor_of_another_device_is_refused() => InProcessNccl.Run(1, (world, device) =>
    {
        using var other = new ZEngine.Emulator.EmulatedCudaDriver();
        using CudaDevice stranger = Devices.OpenEmulated(other);
        using Tensor x = Filled(0, 3, stranger);
        Assert.Contains("is not on cuda:0, the device of rank 0", Assert.Throws<ArgumentException>(() => world.AllReduce(x)).Message, StringComparison.Ordinal);
    });

    /// <summary>On a machine with a GPU: NCCL itself, at world size 1.</summary>
    [Fact]
    public void World_of_one_GPU()
    {
        Assert.SkipUnless(CudaDevice.IsAvailable, $"needs a GPU: {CudaDevice.UnavailableReason}");
        Nccl library;
        try
        {
            library = Nccl.Load();
        }
        catch (NativeLibraryException e)
        {
            Assert.Skip(e.Message);
            return;
        }
        using CudaDevice device = CudaDevice.Open(0);
        using NcclCommunicator world = NcclCommunicator.Join(Communicator.Single, device, library, Worlds.Timeout, Assert.Fail);
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Filled(0, 1000, device), y = Tensor.Empty([1000], DType.Float32, device);
        float[] expected = x.ToArray<float>();
        world.AllReduce(x);
        world.ReduceScatter(x, y);
        world.AllGather(y, x);
        world.AllToAll(x, y);
        world.Broadcast(y);
        Assert.Equal(expected, y.ToArray<float>());
        using CudaGraph graph = device.Capture(() => world.AllReduce(y));
        graph.Launch();
        Assert.Equal(expected, y.ToArray<float>());
    }
}
