using System.Diagnostics;

namespace ZEngine.Distributed;

/// <summary>Ranks that are threads of one process: for tests, and for several devices in one process.</summary>
public sealed class InProcessTransport : Transport
{
    private readonly Hub _hub;

    private InProcessTransport(Hub hub, int rank) => (_hub, Rank) = (hub, rank);

    /// <inheritdoc/>
    public override int Rank { get; }

    /// <inheritdoc/>
    public override int Size => _hub.Mailboxes.Length;

    /// <inheritdoc/>
    public override string Name => "threads";

    /// <summary>One transport for each rank of a new world.</summary>
    public static IReadOnlyList<InProcessTransport> Create(int size, TimeSpan? timeout = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(size, 1);
        var hub = new Hub(size);
        var transports = new InProcessTransport[size];
        for (int rank = 0; rank < size; rank++)
        {
            transports[rank] = new InProcessTransport(hub, rank);
            if (timeout is { } limit) transports[rank].Timeout = limit;
        }
        return transports;
    }

    /// <inheritdoc/>
    public override void Exchange(int tag, ReadOnlySpan<Transfer> sends, ReadOnlySpan<Transfer> receives)
    {
        var posted = new Message[sends.Length];
        for (int i = 0; i < sends.Length; i++)
        {
            Transfer send = sends[i];
            Mailbox box = _hub.Mailboxes[send.Peer];
            posted[i] = new Message(Rank, send.Peer, tag, send.Address, send.Bytes);
            lock (box)
            {
                box.Messages.AddLast(posted[i]);
                Monitor.PulseAll(box);
            }
        }
        try
        {
            foreach (Transfer receive in receives) Receive(tag, receive);
            Mailbox own = _hub.Mailboxes[Rank];
            foreach (Message message in posted)
                lock (own) Await(own, () => message.IsTaken, message.To);
        }
        catch
        {
            // The memory is not ours any more when this call has ended: nobody may read it later.
            foreach (Message message in posted)
                lock (_hub.Mailboxes[message.To]) _hub.Mailboxes[message.To].Messages.Remove(message);
            throw;
        }
    }

    /// <summary>Wakes every rank with an error; ends no process.</summary>
    public override void Abort(int exitCode, string reason)
    {
        _hub.Failure ??= $"rank {Rank} gave up: {reason}";
        foreach (Mailbox box in _hub.Mailboxes)
            lock (box) Monitor.PulseAll(box);
    }

    private unsafe void Receive(int tag, Transfer receive)
    {
        Mailbox own = _hub.Mailboxes[Rank];
        Message? found = null;
        lock (own)
        {
            Await(own, () => (found = own.Messages.FirstOrDefault(message => message.From == receive.Peer)) is not null, receive.Peer);
            if (found!.Tag != tag || found.Bytes != receive.Bytes)
                throw new CommunicatorException($"rank {receive.Peer} sent {found.Bytes} bytes in group {found.Tag}, but rank {Rank} expects {receive.Bytes} in group {tag}: the ranks are out of step");
            Buffer.MemoryCopy((void*)found.Address, (void*)receive.Address, receive.Bytes, receive.Bytes);
            own.Messages.Remove(found);
        }
        Mailbox sender = _hub.Mailboxes[receive.Peer];
        lock (sender)
        {
            found.IsTaken = true;
            Monitor.PulseAll(sender);
        }
    }

    /// <summary>Waits, holding the mailbox, until something is so.</summary>
    private void Await(Mailbox box, Func<bool> isSo, int peer)
    {
        long begin = Stopwatch.GetTimestamp();
        while (!isSo())
        {
            if (_hub.Failure is { } failure) throw new CommunicatorException(failure);
            TimeSpan left = Timeout - Stopwatch.GetElapsedTime(begin);
            if (left <= TimeSpan.Zero) throw TimedOut([peer]);
            Monitor.Wait(box, left);
        }
    }

    private sealed class Hub(int size)
    {
        public Mailbox[] Mailboxes { get; } = [.. Enumerable.Range(0, size).Select(_ => new Mailbox())];

        public volatile string? Failure;
    }

    /// <summary>Messages that a rank has not taken yet; also what the rank waits on.</summary>
    private sealed class Mailbox
    {
        public LinkedList<Message> Messages { get; } = new();
    }

    private sealed class Message(int from, int to, int tag, nint address, long bytes)
    {
        public int From { get; } = from;
        public int To { get; } = to;
        public int Tag { get; } = tag;
        public nint Address { get; } = address;
        public long Bytes { get; } = bytes;
        public bool IsTaken { get; set; }
    }
}
