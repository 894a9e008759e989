using ZEngine.Emulator.Checks;
using ZEngine.Emulator.Execution;

namespace ZEngine.Emulator.Driver;

/// <summary>
/// Streams are lazy: work waits in queues and runs when something must observe it, in a seeded order that respects streams and events and
/// nothing else. So a missing event shows, as a wrong order and as a report.
/// </summary>
internal sealed class StreamScheduler(EmulatorOptions options, Action<int, FaultReport> report)
{
    private readonly List<Stream> _streams = [];
    private readonly Dictionary<int, long> _hostKnows = [];
    private readonly List<QueuedOperation> _history = [];
    private bool _isInForkedGraph;
    private SeededRandom _random = new(SeededRandom.Mix(options.Seed, 0x57BEA));

    /// <summary>Virtual time in milliseconds; launches advance it by what they execute.</summary>
    public double Time { get; set; }

    /// <summary>Whether what operations touch has to be known: only work of several streams can be in conflict.</summary>
    public bool HasSeveralStreams(int device) => _isInForkedGraph || _streams.Count(s => s.Device == device && s.NextSequence > 1) > 1;

    public Stream Create(int device, bool nonBlocking)
    {
        var stream = new Stream(_streams.Count, device, nonBlocking);
        _streams.Add(stream);
        return stream;
    }

    /// <summary>Appends an operation to a stream, or to the graph the stream is being captured into.</summary>
    public QueuedOperation? Enqueue(Stream stream, Operation operation)
    {
        if (stream.Capture is { } graph)
        {
            graph.Nodes.Add((operation, [.. stream.CaptureTail]));
            stream.CaptureTail = [graph.Nodes.Count - 1];
            return null;
        }
        var queued = new QueuedOperation(operation, stream, stream.NextSequence++);
        queued.Waits.AddRange(stream.PendingWaits);
        stream.PendingWaits.Clear();
        // The legacy default stream and the streams that block with it wait for each other.
        foreach (Stream other in _streams)
        {
            bool isDefaultPair = other.Device == stream.Device && other != stream && !other.IsNonBlocking && !stream.IsNonBlocking && (IsDefault(other) || IsDefault(stream));
            if (isDefaultPair && other.Tail is { IsDone: false } tail) queued.Waits.Add(tail);
            if (isDefaultPair && other.Tail is { } last) Join(queued.Known, last);
        }
        Join(queued.Known, _hostKnows);
        Join(queued.Known, stream.Known);
        foreach (QueuedOperation waited in queued.Waits) Join(queued.Known, waited);
        stream.Known = new Dictionary<int, long>(queued.Known) { [stream.Id] = queued.Sequence };
        stream.Queue.Enqueue(queued);
        stream.Tail = queued;
        return queued;
    }

    private static bool IsDefault(Stream stream) => !stream.IsNonBlocking && stream.Id >= 0 && stream.Id == stream.Device;

    private static void Join(Dictionary<int, long> into, QueuedOperation operation)
    {
        Join(into, operation.Known);
        into[operation.Stream.Id] = Math.Max(operation.Sequence, into.GetValueOrDefault(operation.Stream.Id));
    }

    private static void Join(Dictionary<int, long> into, Dictionary<int, long> from)
    {
        foreach ((int stream, long sequence) in from) into[stream] = Math.Max(sequence, into.GetValueOrDefault(stream));
    }

    /// <summary>Runs work until an operation is done; then the host knows of it and of all before it.</summary>
    public void RunUntil(QueuedOperation? target)
    {
        if (target is null) return;
        while (!target.IsDone) RunOne();
        Join(_hostKnows, target);
        ForgetOrdered();
    }

    public void RunAll(int device)
    {
        foreach (Stream stream in _streams) if (stream.Device == device) RunUntil(stream.Tail);
    }

    private void RunOne()
    {
        var ready = new List<Stream>();
        foreach (Stream stream in _streams)
            if (stream.Queue.TryPeek(out QueuedOperation? head) && head.Waits.TrueForAll(w => w.IsDone)) ready.Add(stream);
        if (ready.Count == 0) throw new InvalidOperationException("the queued work of the streams waits for itself");
        Stream chosen = ready[ready.Count == 1 ? 0 : _random.Below(ready.Count)];
        QueuedOperation operation = chosen.Queue.Dequeue();
        operation.Touches = operation.Operation.Run();
        operation.IsDone = true;
        operation.Time = Time;
        if (operation.Touches is null) return;
        foreach (QueuedOperation earlier in _history)
            if (earlier.Stream != chosen && earlier.Sequence > operation.Known.GetValueOrDefault(earlier.Stream.Id))
                CheckPair(earlier.Operation, earlier.Touches!, earlier.Stream.Id, operation.Operation, operation.Touches, chosen.Id);
        _history.Add(operation);
    }

    private void ForgetOrdered() => _history.RemoveAll(o => o.Sequence <= _hostKnows.GetValueOrDefault(o.Stream.Id));

    private void CheckPair(Operation a, Touches touchesA, int streamA, Operation b, Touches touchesB, int streamB)
    {
        if (Touches.Conflict(touchesA, touchesB) is not { } clash) return;
        static string Verb(bool writes) => writes ? "writes" : "reads";
        report(b.Device, new FaultReport
        {
            Kind = FaultKind.StreamRace,
            Kernel = b.Name,
            Message = $"{a.Name} (stream {streamA}) {Verb(clash.FirstWrites)} and {b.Name} (stream {streamB}) {Verb(clash.SecondWrites)} the byte at 0x{clash.Address:X}, and no event orders them",
            Operands = Describe?.Invoke(b.Device, clash.Address) ?? "",
            Policy = options.Policy,
            Seed = options.Seed,
        });
    }

    /// <summary>Names the allocation behind an address.</summary>
    public Func<int, ulong, string>? Describe { get; set; }

    /// <summary>Runs a graph's nodes in a seeded order that respects its edges, and checks those that no edge orders.</summary>
    public Touches? RunGraph(Graph graph, bool tracks)
    {
        int count = graph.Nodes.Count;
        var done = new bool[count];
        var before = new HashSet<int>[count];
        var touched = new Touches?[count];
        Touches? all = tracks ? new Touches() : null;
        _isInForkedGraph = graph.Joined.Count > 0;
        for (int finished = 0; finished < count; finished++)
        {
            int[] ready = [.. Enumerable.Range(0, count).Where(k => !done[k] && graph.Nodes[k].After.All(a => done[a]))];
            int node = ready[_random.Below(ready.Length)];
            before[node] = [.. graph.Nodes[node].After.SelectMany(a => before[a].Append(a))];
            touched[node] = graph.Nodes[node].Operation.Run();
            done[node] = true;
            if (touched[node] is not { } mine) continue;
            all?.Merge(mine);
            for (int other = 0; other < count; other++)
                if (other != node && done[other] && !before[node].Contains(other) && touched[other] is { } theirs)
                    CheckPair(graph.Nodes[other].Operation, theirs, graph.Origin.Id, graph.Nodes[node].Operation, mine, graph.Origin.Id);
        }
        _isInForkedGraph = false;
        return all;
    }
}
