using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace ZEngine.Distributed;

/// <summary>Where the processes of a job find each other: every rank says where it listens, and all are told all places.</summary>
/// <remarks>
/// One line each way: <c>ZENGINE 1 job rank size port</c>, then <c>OK address:port …</c> or <c>REFUSED reason</c>. The connection stays
/// open: a rank whose host is gone notices.
/// </remarks>
public sealed class Rendezvous : IDisposable
{
    private const string Greeting = "ZENGINE 1";
    private const int MostLineBytes = 1 << 20;
    private static readonly TimeSpan RetryInterval = TimeSpan.FromMilliseconds(50);

    private readonly TcpListener _listener;
    private readonly List<Socket> _ranks = [];
    private readonly string _job;
    private readonly int _size;

    /// <summary>Begins to listen and to serve ranks, on a thread of its own.</summary>
    /// <param name="address">Where to listen; port 0 for any that is free.</param>
    /// <param name="job">Names the job: a rank of another is refused.</param>
    /// <param name="size">Ranks to wait for.</param>
    public Rendezvous(IPEndPoint address, string job, int size)
    {
        (_job, _size, _listener) = (job, size, new TcpListener(address));
        _listener.Start(backlog: 1024);
        Address = (IPEndPoint)_listener.LocalEndpoint;
        new Thread(Serve) { IsBackground = true, Name = "ZEngine rendezvous" }.Start();
    }

    /// <summary>Where it listens.</summary>
    public IPEndPoint Address { get; }

    /// <summary>Finds the other ranks and connects to each.</summary>
    /// <param name="host">The rendezvous, as <c>host:port</c>.</param>
    /// <param name="job">Names the job.</param>
    /// <param name="rank">This rank.</param>
    /// <param name="size">The number of ranks.</param>
    /// <param name="timeout">For all of it.</param>
    /// <param name="hostLost">Called once, on another thread, when the rendezvous goes before the transport is disposed; null to ignore it.</param>
    /// <exception cref="CommunicatorException">A rank did not come, or is of another job.</exception>
    public static TcpTransport Join(string host, string job, int rank, int size, TimeSpan timeout, Action? hostLost = null)
    {
        long begin = Stopwatch.GetTimestamp();
        TimeSpan Left() => timeout - Stopwatch.GetElapsedTime(begin);
        Socket control = Connect(Parse(host), Left, $"the rendezvous {host}");
        bool isLocal = ((IPEndPoint)control.LocalEndPoint!).Address is { } own && IPAddress.IsLoopback(own);
        var listener = new TcpListener(isLocal ? IPAddress.Loopback : IPAddress.Any, 0);
        try
        {
            listener.Start(backlog: size);
            WriteLine(control, string.Create(CultureInfo.InvariantCulture, $"{Greeting} {job} {rank} {size} {((IPEndPoint)listener.LocalEndpoint).Port}"));
            string[] answer = ReadLine(control, Left, $"not all {size} ranks came to the rendezvous {host}").Split(' ');
            if (answer[0] != "OK") throw new CommunicatorException($"rank {rank} was refused: {string.Join(' ', answer.Skip(1))}");
            Socket?[] sockets = ConnectAll(answer[1..], listener, job, rank, Left);
            return new TcpTransport(rank, sockets, new Lifeline(control, hostLost)) { Timeout = timeout };
        }
        catch
        {
            control.Dispose();
            throw;
        }
        finally
        {
            listener.Stop();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _listener.Stop();
        lock (_ranks)
            foreach (Socket socket in _ranks) socket.Dispose();
    }

    /// <summary>Higher ranks connect to lower ones, and say who they are.</summary>
    private static Socket?[] ConnectAll(string[] places, TcpListener listener, string job, int rank, Func<TimeSpan> left)
    {
        var sockets = new Socket?[places.Length];
        for (int peer = 0; peer < rank; peer++)
        {
            sockets[peer] = Connect(Parse(places[peer]), left, $"rank {peer} at {places[peer]}");
            WriteLine(sockets[peer]!, string.Create(CultureInfo.InvariantCulture, $"{Greeting} {job} {rank}"));
        }
        for (int missing = places.Length - rank - 1; missing > 0; missing--)
        {
            if (left() <= TimeSpan.Zero || !listener.Server.Poll(left(), SelectMode.SelectRead)) throw new CommunicatorException($"rank {rank}: {missing} higher ranks did not connect in time");
            Socket socket = listener.AcceptSocket();
            string line = ReadLine(socket, left, "a rank that connected did not say who it is");
            string[] words = line.Split(' ');
            if (!line.StartsWith($"{Greeting} {job} ", StringComparison.Ordinal) || !int.TryParse(words[^1], CultureInfo.InvariantCulture, out int peer) || peer <= rank || peer >= places.Length || sockets[peer] is not null)
                throw new CommunicatorException($"rank {rank}: somebody connected who is no rank of this job");
            sockets[peer] = socket;
        }
        return sockets;
    }

    private void Serve()
    {
        var places = new string?[_size];
        try
        {
            for (int come = 0; come < _size;)
            {
                Socket socket = _listener.AcceptSocket();
                lock (_ranks) _ranks.Add(socket);
                string? fault = Register(socket, places);
                if (fault is null) come++;
                else WriteLine(socket, $"REFUSED {fault}");
            }
            string answer = $"OK {string.Join(' ', places)}";
            Socket[] ranks;
            lock (_ranks) ranks = [.. _ranks];
            foreach (Socket socket in ranks) TryWriteLine(socket, answer);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // Disposed: the job is over, or never began. Ranks that wait see the closed connection.
        }
    }

    /// <returns>Why the rank is refused, or null.</returns>
    private string? Register(Socket socket, string?[] places)
    {
        string[] words;
        try
        {
            words = ReadLine(socket, () => TimeSpan.FromSeconds(10), "no greeting").Split(' ');
        }
        catch (CommunicatorException e)
        {
            return e.Message;
        }
        if (words.Length != 6 || $"{words[0]} {words[1]}" != Greeting || !int.TryParse(words[3], CultureInfo.InvariantCulture, out int rank) || !int.TryParse(words[4], CultureInfo.InvariantCulture, out int size) || !int.TryParse(words[5], CultureInfo.InvariantCulture, out int port))
            return "not a rank of ZEngine";
        if (words[2] != _job) return $"this is job {_job}, not {words[2]}";
        if (size != _size || rank < 0 || rank >= _size) return $"this job has {_size} ranks, this is rank {rank} of {size}";
        if (places[rank] is not null) return $"there is a rank {rank} already";
        places[rank] = new IPEndPoint(((IPEndPoint)socket.RemoteEndPoint!).Address, port).ToString();
        return null;
    }

    private static IPEndPoint Parse(string place)
    {
        if (IPEndPoint.TryParse(place, out IPEndPoint? address) && address.Port != 0) return address;
        int colon = place.LastIndexOf(':');
        if (colon < 1 || !int.TryParse(place.AsSpan(colon + 1), CultureInfo.InvariantCulture, out int port)) throw new CommunicatorException($"'{place}' is no place of the form host:port");
        try
        {
            IPAddress[] addresses = Dns.GetHostAddresses(place[..colon]);
            return new IPEndPoint(addresses.FirstOrDefault(candidate => candidate.AddressFamily == AddressFamily.InterNetwork) ?? addresses[0], port);
        }
        catch (SocketException e)
        {
            throw new CommunicatorException($"'{place}': {e.Message}", e);
        }
    }

    /// <summary>Connects, again and again: whoever is to listen may still be starting.</summary>
    private static Socket Connect(IPEndPoint address, Func<TimeSpan> left, string whom)
    {
        while (true)
        {
            var socket = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
            try
            {
                socket.Connect(address);
                return socket;
            }
            catch (SocketException e)
            {
                socket.Dispose();
                if (left() <= TimeSpan.Zero) throw new CommunicatorException($"{whom} does not answer: {e.Message}", e);
                Thread.Sleep(RetryInterval);
            }
        }
    }

    private static void WriteLine(Socket socket, string line)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(line + "\n");
        for (int sent = 0; sent < bytes.Length;) sent += socket.Send(bytes.AsSpan(sent));
    }

    private static void TryWriteLine(Socket socket, string line)
    {
        try
        {
            WriteLine(socket, line);
        }
        catch (SocketException)
        {
            // It is gone: the ranks that connect to it notice.
        }
    }

    /// <summary>Byte by byte, so that nothing behind the line is taken.</summary>
    private static string ReadLine(Socket socket, Func<TimeSpan> left, string complaint)
    {
        var line = new List<byte>();
        Span<byte> next = stackalloc byte[1];
        while (line.Count < MostLineBytes)
        {
            TimeSpan wait = left();
            if (wait <= TimeSpan.Zero || !socket.Poll(wait, SelectMode.SelectRead)) throw new CommunicatorException(complaint + " in time");
            int received = socket.Receive(next, SocketFlags.None, out SocketError error);
            if (error != SocketError.Success || received == 0) throw new CommunicatorException(complaint + ": the connection was closed");
            if (next[0] == '\n') return Encoding.UTF8.GetString([.. line]);
            line.Add(next[0]);
        }
        throw new CommunicatorException(complaint + ": the line has no end");
    }

    /// <summary>The connection to the rendezvous, which says nothing any more and must not end.</summary>
    private sealed class Lifeline : IDisposable
    {
        private readonly Socket _socket;
        private volatile bool _isClosed;

        public Lifeline(Socket socket, Action? lost)
        {
            _socket = socket;
            if (lost is not null) new Thread(() => Watch(lost)) { IsBackground = true, Name = "ZEngine lifeline" }.Start();
        }

        public void Dispose()
        {
            _isClosed = true;
            _socket.Dispose();
        }

        private void Watch(Action lost)
        {
            try
            {
                _socket.Receive(new byte[1], 0, 1, SocketFlags.None, out _);
            }
            catch (ObjectDisposedException)
            {
                return;
            }
            if (!_isClosed) lost();
        }
    }
}
