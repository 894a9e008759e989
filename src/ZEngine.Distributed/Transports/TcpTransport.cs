using System.Buffers.Binary;
using System.Diagnostics;
using System.Net.Sockets;
using System.Text;

namespace ZEngine.Distributed;

/// <summary>Ranks that are processes, each with a TCP connection to every other; see <see cref="Rendezvous"/> for how they find each other.</summary>
/// <remarks>Sends and receives run in one loop over sockets that do not block: two ranks that send to each other cannot wait for each other.</remarks>
public sealed class TcpTransport : Transport
{
    private const int BufferBytes = 4 << 20, HeaderBytes = 16, AbortTag = -1, MostReasonBytes = 4096;
    private const int PollMicroseconds = 20_000;

    private readonly Socket?[] _sockets;                       // null at the own rank
    private readonly bool[] _isWithinMessage;                  // sending to a rank stopped in the middle
    private readonly IDisposable? _lifeline;
    private bool _isClosed;

    /// <summary>A transport over connections that stand.</summary>
    /// <param name="rank">This rank.</param>
    /// <param name="sockets">A connection to every rank; null at this one.</param>
    /// <param name="lifeline">Disposed with the transport, or null.</param>
    internal TcpTransport(int rank, Socket?[] sockets, IDisposable? lifeline = null)
    {
        (Rank, _sockets, _isWithinMessage, _lifeline) = (rank, sockets, new bool[sockets.Length], lifeline);
        foreach (Socket? socket in sockets)
        {
            if (socket is null) continue;
            (socket.Blocking, socket.NoDelay) = (false, true);
            (socket.SendBufferSize, socket.ReceiveBufferSize) = (BufferBytes, BufferBytes);
        }
    }

    /// <inheritdoc/>
    public override int Rank { get; }

    /// <inheritdoc/>
    public override int Size => _sockets.Length;

    /// <inheritdoc/>
    public override string Name => "tcp";

    /// <inheritdoc/>
    public override void Exchange(int tag, ReadOnlySpan<Transfer> sends, ReadOnlySpan<Transfer> receives)
    {
        Flow[] outgoing = Flows(sends, tag), incoming = Flows(receives, tag);
        long lastProgress = Stopwatch.GetTimestamp();
        while (true)
        {
            NoteTurn();
            bool isDone = true, hasMoved = false;
            foreach (Flow flow in outgoing)
            {
                hasMoved |= Push(flow);
                isDone &= flow.IsDone;
            }
            foreach (Flow flow in incoming)
            {
                hasMoved |= Pull(flow);
                isDone &= flow.IsDone;
            }
            if (isDone) return;
            if (hasMoved) lastProgress = Stopwatch.GetTimestamp();
            else if (Stopwatch.GetElapsedTime(lastProgress) > Timeout) throw TimedOut(outgoing.Concat(incoming).Where(flow => !flow.IsDone).Select(flow => flow.Peer));
            else WaitForSockets(outgoing, incoming);
        }
    }

    /// <summary>Sends the reason to every rank that still listens; the process is the caller's to end.</summary>
    public override void Abort(int exitCode, string reason)
    {
        if (_isClosed) return;
        byte[] text = Encoding.UTF8.GetBytes(reason);
        if (text.Length > MostReasonBytes) text = text[..MostReasonBytes];
        byte[] message = [.. Header(AbortTag, text.Length), .. text];
        // A message cut off in the middle of another would be taken for data: then the closed connection alone tells the others.
        for (int rank = 0; rank < Size; rank++)
            if (!_isWithinMessage[rank]) _sockets[rank]?.Send(message, SocketFlags.None, out _);
        Dispose(true);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (!_isClosed)
        {
            _isClosed = true;
            _lifeline?.Dispose();
            foreach (Socket? socket in _sockets) socket?.Dispose();
        }
        base.Dispose(disposing);
    }

    private static byte[] Header(int tag, long bytes)
    {
        var header = new byte[HeaderBytes];
        BinaryPrimitives.WriteInt32LittleEndian(header, tag);
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(8), bytes);
        return header;
    }

    /// <summary>One flow for each peer: its messages one after the other.</summary>
    private static Flow[] Flows(ReadOnlySpan<Transfer> transfers, int tag)
    {
        var flows = new List<Flow>();
        foreach (Transfer transfer in transfers)
        {
            Flow? flow = flows.Find(flow => flow.Peer == transfer.Peer);
            if (flow is null) flows.Add(flow = new Flow(transfer.Peer, tag));
            flow.Messages.Enqueue(transfer);
        }
        return [.. flows];
    }

    private Socket SocketOf(int peer) => _isClosed ? throw new CommunicatorException("the connections are closed") : _sockets[peer]!;

    private unsafe bool Push(Flow flow)
    {
        bool hasMoved = false;
        while (flow.Messages.TryPeek(out Transfer message))
        {
            if (flow.HeaderDone == 0) Header(flow.Tag, message.Bytes).CopyTo(flow.Header, 0);
            int sent;
            SocketError error;
            if (flow.HeaderDone < HeaderBytes) sent = SocketOf(flow.Peer).Send(flow.Header.AsSpan(flow.HeaderDone), SocketFlags.None, out error);
            else sent = SocketOf(flow.Peer).Send(new ReadOnlySpan<byte>((byte*)message.Address + flow.Done, (int)Math.Min(BufferBytes, message.Bytes - flow.Done)), SocketFlags.None, out error);
            if (error == SocketError.WouldBlock) break;
            if (error != SocketError.Success) throw Lost(flow.Peer, error);
            hasMoved |= sent > 0;
            flow.Advance(sent, message.Bytes);
            _isWithinMessage[flow.Peer] = flow.HeaderDone > 0;
        }
        return hasMoved;
    }

    private unsafe bool Pull(Flow flow)
    {
        bool hasMoved = false;
        while (flow.Messages.TryPeek(out Transfer message))
        {
            Socket socket = SocketOf(flow.Peer);
            int received;
            SocketError error;
            bool isHeader = flow.HeaderDone < HeaderBytes;
            if (isHeader) received = socket.Receive(flow.Header.AsSpan(flow.HeaderDone), SocketFlags.None, out error);
            else received = socket.Receive(new Span<byte>((byte*)message.Address + flow.Done, (int)Math.Min(BufferBytes, message.Bytes - flow.Done)), SocketFlags.None, out error);
            if (error == SocketError.WouldBlock) break;
            if (error != SocketError.Success || received == 0) throw Lost(flow.Peer, error);
            hasMoved = true;
            flow.Advance(received, message.Bytes);
            if (isHeader && flow.HeaderDone == HeaderBytes) Check(flow, message);
        }
        return hasMoved;
    }

    private void Check(Flow flow, Transfer expected)
    {
        int tag = BinaryPrimitives.ReadInt32LittleEndian(flow.Header);
        long bytes = BinaryPrimitives.ReadInt64LittleEndian(flow.Header.AsSpan(8));
        if (tag == AbortTag) throw new CommunicatorException($"rank {flow.Peer} gave up: {ReadReason(flow.Peer, bytes)}");
        if (tag != flow.Tag || bytes != expected.Bytes)
            throw new CommunicatorException($"rank {flow.Peer} sent {bytes} bytes in group {tag}, but rank {Rank} expects {expected.Bytes} in group {flow.Tag}: the ranks are out of step");
    }

    private string ReadReason(int peer, long bytes)
    {
        var text = new byte[Math.Clamp(bytes, 0, MostReasonBytes)];
        int at = 0;
        Socket socket = SocketOf(peer);
        while (at < text.Length && socket.Poll(PollMicroseconds, SelectMode.SelectRead))
        {
            int received = socket.Receive(text.AsSpan(at), SocketFlags.None, out SocketError error);
            if (error != SocketError.Success || received == 0) break;
            at += received;
        }
        return Encoding.UTF8.GetString(text, 0, at);
    }

    private static CommunicatorException Lost(int peer, SocketError error) =>
        new($"rank {peer} is gone: it closed its connection{(error is SocketError.Success or SocketError.ConnectionReset ? "" : $" ({error})")}");

    private void WaitForSockets(Flow[] outgoing, Flow[] incoming)
    {
        List<Socket> read = [.. incoming.Where(flow => !flow.IsDone).Select(flow => SocketOf(flow.Peer))], write = [.. outgoing.Where(flow => !flow.IsDone).Select(flow => SocketOf(flow.Peer))];
        Socket.Select(read, write, null, PollMicroseconds);
    }

    private sealed class Flow(int peer, int tag)
    {
        public int Peer { get; } = peer;
        public int Tag { get; } = tag;
        public Queue<Transfer> Messages { get; } = new();
        public byte[] Header { get; } = new byte[HeaderBytes];
        public int HeaderDone { get; private set; }
        public long Done { get; private set; }
        public bool IsDone => Messages.Count == 0;

        public void Advance(int moved, long bytes)
        {
            if (HeaderDone < HeaderBytes) HeaderDone += moved;
            else Done += moved;
            if (HeaderDone < HeaderBytes || Done < bytes) return;
            Messages.Dequeue();
            (HeaderDone, Done) = (0, 0);
        }
    }
}
