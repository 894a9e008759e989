// One room: the things that wait in a stream are a few lines each.
using ZEngine.Emulator.Checks;

namespace ZEngine.Emulator.Driver;

/// <summary>Work for a stream: what it is called, and what it does. Doing it gives back what it touched, when that is tracked.</summary>
internal sealed record Operation(string Name, int Device, Func<Touches?> Run);

/// <summary>An operation in a stream's queue.</summary>
internal sealed class QueuedOperation(Operation operation, Stream stream, long sequence)
{
    public Operation Operation => operation;
    public Stream Stream => stream;
    public long Sequence => sequence;
    /// <summary>Operations of other streams that must have finished.</summary>
    public readonly List<QueuedOperation> Waits = [];
    /// <summary>Per stream, the last operation that is known to have finished before this one begins.</summary>
    public Dictionary<int, long> Known = [];
    public bool IsDone;
    public Touches? Touches;
    /// <summary>Virtual time at its end.</summary>
    public double Time;
}

internal sealed class Stream(int id, int device, bool nonBlocking)
{
    public int Id => id;
    public int Device => device;
    public bool IsNonBlocking => nonBlocking;
    public bool IsDestroyed;
    public readonly Queue<QueuedOperation> Queue = [];
    public readonly List<QueuedOperation> PendingWaits = [];
    public QueuedOperation? Tail;
    public long NextSequence = 1;
    public Dictionary<int, long> Known = [];
    public Graph? Capture;
    /// <summary>While it is captured: the nodes the next one follows.</summary>
    public List<int> CaptureTail = [];
}

internal sealed class EventState
{
    public QueuedOperation? Recorded;
    public bool HasTiming;
    public Graph? CaptureGraph;
    public List<int> CaptureNodes = [];
}

/// <summary>A captured graph: operations, each with those it follows.</summary>
internal sealed class Graph(Stream origin)
{
    public Stream Origin => origin;
    public readonly List<(Operation Operation, int[] After)> Nodes = [];
    public readonly List<Stream> Joined = [];
}
