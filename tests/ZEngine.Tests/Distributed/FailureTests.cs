using System.Diagnostics;
using System.Net;
using ZEngine.Distributed;

namespace ZEngine.Tests.Distributed;

/// <summary>A rank that goes, hangs or does something else is named, and nobody waits for ever.</summary>
public sealed class FailureTests
{
    private static readonly TimeSpan Short = TimeSpan.FromMilliseconds(400);

    public static TheoryData<string> Transports { get; } = ["threads", "tcp"];

    private static string MessageOf(string transport, int size, Action<Communicator> program, TimeSpan? timeout = null)
    {
        var messages = new string?[size];
        Assert.ThrowsAny<Exception>(() => Worlds.Run(transport, size, world =>
        {
            try
            {
                program(world);
            }
            catch (CommunicatorException e)
            {
                messages[world.Rank] = e.Message;
                throw;
            }
        }, timeout));
        return string.Join('\n', messages);
    }

    [Theory, MemberData(nameof(Transports))]
    public void Rank_that_does_something_else_is_named(string transport)
    {
        string message = MessageOf(transport, 3, world =>
        {
            using Tensor x = Tensor.Zeros([4], DType.Float32, Device.Cpu);
            world.Barrier();
            if (world.Rank == 1) world.Broadcast(x);
            else world.AllReduce(x);
        });
        Assert.Matches("rank 1 (is )?at number 2, Broadcast of 4 Float32 from 0", message);              // said by another, or by itself
        Assert.Contains("AllReduce of 4 Float32, Sum", message, StringComparison.Ordinal);
    }

    [Theory, MemberData(nameof(Transports))]
    public void Other_size_type_and_parts_are_found_before_data_moves(string transport)
    {
        foreach ((int count, DType dtype) in ((int, DType)[])[(5, DType.Float32), (4, DType.Int32)])
            Assert.Contains("out of step", MessageOf(transport, 2, world =>
            {
                using Tensor x = Tensor.Zeros([world.Rank == 0 ? 4 : count], world.Rank == 0 ? DType.Float32 : dtype, Device.Cpu);
                world.AllReduce(x);
            }), StringComparison.Ordinal);
        Assert.Contains("out of step", MessageOf(transport, 2, world =>
        {
            using Tensor x = Tensor.Zeros([4], DType.Float32, Device.Cpu), y = Tensor.Zeros([4], DType.Float32, Device.Cpu);
            world.AllToAll(x, y, world.Rank == 0 ? [1, 3] : [2, 2], world.Rank == 0 ? [1, 3] : [2, 2]);
        }), StringComparison.Ordinal);
    }

    [Theory, MemberData(nameof(Transports))]
    public void Stuck_rank_is_named_with_op_and_number(string transport)
    {
        string message = MessageOf(transport, 3, world =>
        {
            world.Barrier();
            if (world.Rank == 2) Thread.Sleep(4 * Short);
            using Tensor x = Tensor.Zeros([4], DType.Float32, Device.Cpu);
            world.AllReduce(x);
        }, Short);
        Assert.Contains("AllReduce of 4 Float32 (number 2): waited 0.4 s in vain for rank 2", message, StringComparison.Ordinal);
    }

    [Theory, MemberData(nameof(Transports))]
    public void Failure_of_a_rank_wakes_the_others_at_once(string transport)
    {
        var clock = Stopwatch.StartNew();
        Exception e = Assert.Throws<TimeZoneNotFoundException>(() => Worlds.Run(transport, 4, world =>
        {
            world.Barrier();
            if (world.Rank == 3) throw new TimeZoneNotFoundException("planted");
            world.Barrier();
        }));
        Assert.Equal("planted", e.Message);
        Assert.True(clock.Elapsed < Worlds.Timeout / 2);
    }

    [Fact]
    public void After_a_failure_every_further_call_fails()
    {
        string message = MessageOf("threads", 2, world =>
        {
            if (world.Rank == 1) return;
            Assert.Throws<CommunicatorException>(world.Barrier);
            world.Barrier();
        }, Short);
        Assert.Contains("the world failed before", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Rendezvous_refuses_what_is_not_of_the_job()
    {
        using var rendezvous = new Rendezvous(new IPEndPoint(IPAddress.Loopback, 0), "job7", 2);
        string place = rendezvous.Address.ToString();
        string Refusal(string job, int rank, int size) => Assert.Throws<CommunicatorException>(() => Rendezvous.Join(place, job, rank, size, TimeSpan.FromSeconds(5))).Message;
        Assert.Contains("this is job job7, not job6", Refusal("job6", 0, 2), StringComparison.Ordinal);
        Assert.Contains("has 2 ranks, this is rank 2 of 3", Refusal("job7", 2, 3), StringComparison.Ordinal);
        var first = new Thread(() => Assert.ThrowsAny<CommunicatorException>(() => Rendezvous.Join(place, "job7", 0, 2, TimeSpan.FromSeconds(2))));
        first.Start();
        Thread.Sleep(200);
        Assert.Contains("there is a rank 0 already", Refusal("job7", 0, 2), StringComparison.Ordinal);
        first.Join();
    }

    [Fact]
    public void Ranks_that_differ_get_a_table_of_who()
    {
        var e = Assert.Throws<WorldMismatchException>(() => Worlds.Run("threads", 4, world =>
            WorldAgreement.RequireSame(world, ("build", "1"), ("dtype", world.Rank == 2 ? "bfloat16" : "float32"))));
        Assert.Contains("dtype            float32                                  rank 0-1, 3", e.Message, StringComparison.Ordinal);
        Assert.Contains("dtype            bfloat16                                 rank 2", e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("build", e.Message, StringComparison.Ordinal);
        e = Assert.Throws<WorldMismatchException>(() => Worlds.Run("threads", 3, world => WorldAgreement.RequireDistinct(world, $"host 0000:0{world.Rank % 2}:00.0")));
        Assert.Contains("host 0000:00:00.0                        rank 0, 2", e.Message, StringComparison.Ordinal);
    }
}
