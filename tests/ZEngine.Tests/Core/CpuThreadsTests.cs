namespace ZEngine.Tests.Core;

/// <summary>Work on ranges, spread over threads.</summary>
public sealed class CpuThreadsTests
{
    [Theory]
    [InlineData(0, 1), InlineData(1, 1), InlineData(7, 3), InlineData(1000, 1), InlineData(1000, 999), InlineData(12345, 64), InlineData(5, 0)]
    public void Every_index_is_run_exactly_once(long total, long grain) => With(4, () =>
    {
        for (int round = 0; round < 50; round++)
        {
            var counts = new int[total];
            CpuThreads.For(total, grain, new Counting(counts));
            Assert.All(counts, n => Assert.Equal(1, n));
        }
    });

    /// <summary>Workers fetch the weights that followed the last time. These may have been given back since: nothing may be touched in earnest.</summary>
    [Fact]
    public void Weights_that_are_gone_are_fetched_without_harm() => With(2, () =>
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([1, 2048], DType.Float32, Device.Cpu), first = Tensor.Zeros([2048, 2048], DType.Float32, Device.Cpu), second = Tensor.Zeros([2048, 2048], DType.Float32, Device.Cpu);
        for (int i = 0; i < 3; i++)
        {
            ZEngine.Ops.Linear(x, first);
            ZEngine.Ops.Linear(x, second);
        }
        TensorScope.Drop(second);
        Device.Cpu.Trim();                                     // 16 MB go back to the system
        for (int i = 0; i < 20; i++) Assert.All(ZEngine.Ops.Linear(x, first).ToArray<float>(), value => Assert.Equal(0, value));
    });

    [Fact]
    public void Nested_calls_run_every_index_exactly_once() => With(4, () =>
    {
        var counts = new int[40 * 300];
        CpuThreads.For(40, 1, new Nesting(counts));
        Assert.All(counts, n => Assert.Equal(1, n));
    });

    [Fact]
    public void Concurrent_calls_run_every_index_exactly_once() => With(4, () =>
    {
        var failures = new List<Exception>();
        var threads = new Thread[6];
        for (int i = 0; i < threads.Length; i++)
        {
            threads[i] = new Thread(() =>
            {
                try
                {
                    for (int round = 0; round < 300; round++)
                    {
                        var counts = new int[512];
                        CpuThreads.For(512, 8, new Counting(counts));
                        Assert.All(counts, n => Assert.Equal(1, n));
                    }
                }
                catch (Exception e)
                {
                    lock (failures) failures.Add(e);
                }
            });
            threads[i].Start();
        }
        foreach (Thread thread in threads) thread.Join();
        Assert.Empty(failures);
    });

    [Fact]
    public void Errors_arrive_from_every_thread_and_the_workers_live_on() => With(4, () =>
    {
        for (int round = 0; round < 200; round++)
        {
            int bad = round % 64;
            Exception error = Assert.ThrowsAny<Exception>(() => CpuThreads.For(64, 1, new Failing(bad)));
            Assert.EndsWith($"index {bad} is bad", error.Message, StringComparison.Ordinal);
            var counts = new int[64];
            CpuThreads.For(64, 1, new Counting(counts));
            Assert.All(counts, n => Assert.Equal(1, n));
        }
    });

    /// <summary>Each piece waits for all the others, so every thread has to come, from its sleep too.</summary>
    [Fact]
    public void Workers_that_sleep_are_woken() => With(4, () =>
    {
        for (int round = 0; round < 40; round++)
        {
            using var meeting = new CountdownEvent(4);
            if (round % 4 == 0) Thread.Sleep(20);
            CpuThreads.For(4, 1, new Meeting(meeting));
        }
    });

    [Fact]
    public void Number_of_threads_has_bounds()
    {
        int threads = CpuDevice.Threads;
        Assert.Throws<ArgumentOutOfRangeException>(() => CpuDevice.Threads = 0);
        Assert.Throws<ArgumentOutOfRangeException>(() => CpuDevice.Threads = 1025);
        Assert.Equal(threads, CpuDevice.Threads);
        Assert.Matches("^(512-bit, 16|256-bit, 8|128-bit, 4) floats a step$", CpuDevice.Simd);
    }

    [Fact]
    public void Bits_do_not_depend_on_the_number_of_threads()
    {
        float[]? expected = null;
        for (int threads = 1; threads <= 5; threads++)
        {
            float[]? values = null;
            With(threads, () =>
            {
                using Tape tape = Tape.Begin();
                var random = new RandomStream(9);
                Tensor x = tape.Watch(ZEngine.Ops.RandomNormal([3, 67, 130], Device.Cpu, random));
                Tensor w = tape.Watch(ZEngine.Ops.RandomNormal([130, 130], Device.Cpu, new RandomStream(10), 0, 0.1f)), gain = tape.Watch(ZEngine.Ops.RandomUniform([130], Device.Cpu, new RandomStream(11), 0.5f, 2));
                Tensor y = x;
                for (int i = 0; i < 3; i++) y = ZEngine.Ops.RmsNorm(ZEngine.Ops.Map(Pointwise.Silu, ZEngine.Ops.Linear(y, w)), gain, 1e-5f);
                Tensor loss = ZEngine.Ops.Mean(ZEngine.Ops.Map(Pointwise.Square, y));
                tape.Backward(loss);
                values = [loss.Item(), .. y.ToArray<float>(), .. tape.GradientOf(x).ToArray<float>(), .. tape.GradientOf(w).ToArray<float>(), .. tape.GradientOf(gain).ToArray<float>()];
            });
            expected ??= values;
            Assert.Equal(expected!.Select(BitConverter.SingleToUInt32Bits), values!.Select(BitConverter.SingleToUInt32Bits));
        }
    }

    private static void With(int threads, Action action)
    {
        int before = CpuDevice.Threads;
        CpuDevice.Threads = threads;
        try
        {
            action();
        }
        finally
        {
            CpuDevice.Threads = before;
        }
    }

    private readonly struct Counting(int[] counts) : IParallelJob
    {
        public void Run(long begin, long end)
        {
            for (long i = begin; i < end; i++) Interlocked.Increment(ref counts[i]);
        }
    }

    private readonly struct Meeting(CountdownEvent meeting) : IParallelJob
    {
        public void Run(long begin, long end)
        {
            meeting.Signal();
            if (!meeting.Wait(TimeSpan.FromMinutes(1))) throw new TimeoutException("A thread did not come.");
        }
    }

    private readonly struct Nesting(int[] counts) : IParallelJob
    {
        public void Run(long begin, long end)
        {
            for (long i = begin; i < end; i++) CpuThreads.For(300, 7, new Part(counts, i * 300));
        }
    }

    private readonly struct Part(int[] counts, long from) : IParallelJob
    {
        public void Run(long begin, long end)
        {
            for (long i = begin; i < end; i++) Interlocked.Increment(ref counts[from + i]);
        }
    }

    private readonly struct Failing(int bad) : IParallelJob
    {
        public void Run(long begin, long end)
        {
            Thread.SpinWait(200);
            if (begin <= bad && bad < end) throw new InvalidDataException($"index {bad} is bad");
        }
    }
}
