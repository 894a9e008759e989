using System.Net;
using ZEngine.Distributed;

namespace ZEngine.Tests.Distributed;

/// <summary>Worlds of this process, on either transport.</summary>
internal static class Worlds
{
    public static readonly TimeSpan Timeout = TimeSpan.FromSeconds(60);

    public static T[] Run<T>(string transport, int size, Func<Communicator, T> program, TimeSpan? timeout = null) =>
        transport == "threads" ? InProcessWorld.Run(size, program, timeout ?? Timeout) : InProcessWorld.Run([.. Tcp(size, timeout ?? Timeout).Select(own => new CpuCollectives(own))], program);

    public static void Run(string transport, int size, Action<Communicator> program, TimeSpan? timeout = null) => Run(transport, size, world =>
    {
        program(world);
        return 0;
    }, timeout);

    /// <summary>Ranks of one process that talk over the loopback.</summary>
    public static TcpTransport[] Tcp(int size, TimeSpan timeout)
    {
        using var rendezvous = new Rendezvous(new IPEndPoint(IPAddress.Loopback, 0), "job", size);
        var transports = new TcpTransport[size];
        Thread[] threads = [.. Enumerable.Range(0, size).Select(rank => new Thread(() => transports[rank] = Rendezvous.Join(rendezvous.Address.ToString(), "job", rank, size, TimeSpan.FromSeconds(20))))];
        foreach (Thread thread in threads) thread.Start();
        foreach (Thread thread in threads) thread.Join();
        foreach (TcpTransport transport in transports) transport.Timeout = timeout;
        return transports;
    }
}
