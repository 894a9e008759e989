using ZEngine.Emulator.Checks;
using ZEngine.Emulator.Driver;
using ZEngine.Interop;

namespace ZEngine.Emulator;

public sealed partial class EmulatedCudaDriver
{
    private Driver.Stream StreamOf(CudaStreamHandle handle, string call) =>
        handle.Value == 0 ? _defaultStreams[CurrentDevice] : _streams.Get(handle.Value, call);

    /// <summary>Queues work. After a device has failed, work is dropped, as a GPU drops it.</summary>
    private QueuedOperation? Enqueue(string call, CudaStreamHandle handle, string name, Func<Touches?> run)
    {
        Driver.Stream stream = StreamOf(handle, call);
        int device = stream.Device;
        return _scheduler.Enqueue(stream, new Operation(name, device, () => _errors[device] is null ? run() : null));
    }

    /// <inheritdoc/>
    public override CudaStreamHandle CreateStream(bool nonBlocking = true)
    {
        lock (_gate)
        {
            Usable("cuStreamCreate");
            return new CudaStreamHandle(_streams.Add(_scheduler.Create(CurrentDevice, nonBlocking)));
        }
    }

    /// <inheritdoc/>
    public override void DestroyStream(CudaStreamHandle stream)
    {
        lock (_gate) _streams.Remove(stream.Value, "cuStreamDestroy").IsDestroyed = true;
    }

    /// <inheritdoc/>
    public override void StreamSynchronize(CudaStreamHandle stream)
    {
        const string call = "cuStreamSynchronize";
        lock (_gate)
        {
            Usable(call);
            Driver.Stream target = StreamOf(stream, call);
            RefuseWhileCaptured(call, target);
            _scheduler.RunUntil(target.Tail);
            Usable(call);
        }
    }

    private static void RefuseWhileCaptured(string call, Driver.Stream stream)
    {
        if (stream.Capture is not null) throw Error(call, CudaResult.StreamCaptureUnsupported, "the stream is being captured; nothing runs, so nothing can be waited for");
    }

    /// <inheritdoc/>
    public override bool StreamQuery(CudaStreamHandle stream)
    {
        const string call = "cuStreamQuery";
        lock (_gate)
        {
            Usable(call);
            Driver.Stream target = StreamOf(stream, call);
            RefuseWhileCaptured(call, target);
            if (target.Tail is null or { IsDone: true }) return true;
            // Not yet; but whoever asks again and again must get there.
            _scheduler.RunUntil(target.Tail);
            return false;
        }
    }

    /// <inheritdoc/>
    public override void StreamWaitEvent(CudaStreamHandle stream, CudaEventHandle waited)
    {
        const string call = "cuStreamWaitEvent";
        lock (_gate)
        {
            Usable(call);
            Driver.Stream target = StreamOf(stream, call);
            EventState state = _events.Get(waited.Value, call);
            if (state.CaptureGraph is { } graph)
            {
                // Waiting for an event of a capture draws the stream into it.
                if (target.Capture is null)
                {
                    target.Capture = graph;
                    graph.Joined.Add(target);
                    target.CaptureTail = [];
                }
                else if (target.Capture != graph)
                {
                    throw Error(call, CudaResult.StreamCaptureInvalidated, "the event belongs to another capture");
                }
                target.CaptureTail = [.. target.CaptureTail.Union(state.CaptureNodes)];
                return;
            }
            if (target.Capture is not null) throw Error(call, CudaResult.StreamCaptureUnsupported, "a capture cannot wait for an event recorded outside of it");
            if (state.Recorded is not null) target.PendingWaits.Add(state.Recorded);
        }
    }

    /// <inheritdoc/>
    public override void LaunchHostFunction(CudaStreamHandle stream, Action action)
    {
        lock (_gate)
        {
            Usable("cuLaunchHostFunc");
            Enqueue("cuLaunchHostFunc", stream, "host function", () =>
            {
                action();
                return null;
            });
        }
    }

    // ---- Events ------------------------------------------------------------------------------------------------------------------------

    /// <inheritdoc/>
    public override CudaEventHandle CreateEvent(bool timing = false)
    {
        lock (_gate) return new CudaEventHandle(_events.Add(new EventState { HasTiming = timing }));
    }

    /// <inheritdoc/>
    public override void DestroyEvent(CudaEventHandle handle)
    {
        lock (_gate) _events.Remove(handle.Value, "cuEventDestroy");
    }

    /// <inheritdoc/>
    public override void RecordEvent(CudaEventHandle handle, CudaStreamHandle stream)
    {
        const string call = "cuEventRecord";
        lock (_gate)
        {
            Usable(call);
            EventState state = _events.Get(handle.Value, call);
            Driver.Stream target = StreamOf(stream, call);
            state.CaptureGraph = target.Capture;
            if (target.Capture is not null) state.CaptureNodes = [.. target.CaptureTail];
            else state.Recorded = Enqueue(call, stream, "event", () => null);
        }
    }

    /// <inheritdoc/>
    public override void EventSynchronize(CudaEventHandle handle)
    {
        const string call = "cuEventSynchronize";
        lock (_gate)
        {
            Usable(call);
            EventState state = _events.Get(handle.Value, call);
            if (state.CaptureGraph is not null) throw Error(call, CudaResult.StreamCaptureUnsupported, "the event was recorded in a capture");
            _scheduler.RunUntil(state.Recorded);
            Usable(call);
        }
    }

    /// <inheritdoc/>
    public override bool EventQuery(CudaEventHandle handle)
    {
        const string call = "cuEventQuery";
        lock (_gate)
        {
            Usable(call);
            EventState state = _events.Get(handle.Value, call);
            if (state.Recorded is null or { IsDone: true }) return true;
            _scheduler.RunUntil(state.Recorded);
            return false;
        }
    }

    /// <inheritdoc/>
    public override float EventElapsedMs(CudaEventHandle start, CudaEventHandle end)
    {
        const string call = "cuEventElapsedTime";
        lock (_gate)
        {
            EventState first = _events.Get(start.Value, call), last = _events.Get(end.Value, call);
            if (!first.HasTiming || !last.HasTiming || first.Recorded is null || last.Recorded is null) throw Error(call, CudaResult.InvalidHandle, "both events must be created with timing and recorded");
            if (!first.Recorded.IsDone || !last.Recorded.IsDone) throw Error(call, CudaResult.NotReady, "an event has not been reached yet");
            return (float)(last.Recorded.Time - first.Recorded.Time);
        }
    }

    // ---- Graphs ------------------------------------------------------------------------------------------------------------------------

    /// <inheritdoc/>
    public override void BeginCapture(CudaStreamHandle stream)
    {
        const string call = "cuStreamBeginCapture";
        lock (_gate)
        {
            Usable(call);
            if (stream.Value == 0) throw Error(call, CudaResult.StreamCaptureUnsupported, "the legacy default stream cannot be captured");
            Driver.Stream target = StreamOf(stream, call);
            if (target.Capture is not null) throw Error(call, CudaResult.InvalidValue, "the stream is being captured already");
            target.Capture = new Graph(target);
            target.CaptureTail = [];
        }
    }

    /// <inheritdoc/>
    public override CudaGraphHandle EndCapture(CudaStreamHandle stream)
    {
        const string call = "cuStreamEndCapture";
        lock (_gate)
        {
            Driver.Stream target = StreamOf(stream, call);
            Graph graph = target.Capture ?? throw Error(call, CudaResult.InvalidValue, "the stream is not being captured");
            if (graph.Origin != target) throw Error(call, CudaResult.StreamCaptureUnjoined, "a capture ends on the stream on which it began");
            // Everything other streams recorded must lead back to the stream where the capture began.
            var reached = new HashSet<int>();
            void Reach(int node)
            {
                if (!reached.Add(node)) return;
                foreach (int before in graph.Nodes[node].After) Reach(before);
            }
            foreach (int node in target.CaptureTail) Reach(node);
            foreach (Driver.Stream joined in graph.Joined) joined.Capture = null;
            target.Capture = null;
            if (reached.Count < graph.Nodes.Count) throw Error(call, CudaResult.StreamCaptureUnjoined, "work of another stream was captured and never joined again");
            return new CudaGraphHandle(_graphs.Add(graph));
        }
    }

    /// <inheritdoc/>
    public override CudaGraphExecHandle InstantiateGraph(CudaGraphHandle graph)
    {
        lock (_gate) return new CudaGraphExecHandle(_executables.Add(_graphs.Get(graph.Value, "cuGraphInstantiate")));
    }

    /// <inheritdoc/>
    public override void LaunchGraph(CudaGraphExecHandle graph, CudaStreamHandle stream)
    {
        const string call = "cuGraphLaunch";
        lock (_gate)
        {
            Usable(call);
            Graph captured = _executables.Get(graph.Value, call);
            int device = StreamOf(stream, call).Device;
            Enqueue(call, stream, "graph", () => _scheduler.RunGraph(captured, TracksStreams(device)));
        }
    }

    /// <inheritdoc/>
    public override void DestroyGraph(CudaGraphHandle graph)
    {
        lock (_gate) _graphs.Remove(graph.Value, "cuGraphDestroy");
    }

    /// <inheritdoc/>
    public override void DestroyGraphExec(CudaGraphExecHandle graph)
    {
        lock (_gate) _executables.Remove(graph.Value, "cuGraphExecDestroy");
    }
}
