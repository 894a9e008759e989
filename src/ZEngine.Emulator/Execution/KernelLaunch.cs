using System.Numerics;
using System.Runtime.InteropServices;
using ZEngine.Emulator.Checks;
using ZEngine.Emulator.Memory;
using ZEngine.Emulator.Ptx;
using ZEngine.Interop;

namespace ZEngine.Emulator.Execution;

/// <summary>One execution of a kernel.</summary>
internal sealed unsafe class KernelLaunch
{
    private const int MaxKinds = 8;

    private readonly Dictionary<(FaultKind, int), FaultReport> _reports = [];
    private readonly byte[] _arguments;
    private readonly Func<ulong, DeviceMemory?> _peer;
    private readonly bool _tracksTouches;
    private readonly int _l1Bytes;
    private long _nextBlock;
    private volatile bool _stop;

    public KernelLaunch(
        KernelProgram program, LaunchConfiguration configuration, byte[] arguments, EmulatorOptions options, DeviceMemory memory,
        int multiprocessors, int residentBlocks, int l1Bytes, Func<ulong, DeviceMemory?> peer, bool tracksTouches)
    {
        Program = program;
        Configuration = configuration;
        Options = options;
        Memory = memory;
        Multiprocessors = multiprocessors;
        ResidentBlocks = residentBlocks;
        _arguments = arguments;
        _peer = peer;
        _tracksTouches = tracksTouches;
        _l1Bytes = l1Bytes;
        if (options.Checks.HasFlag(EmulatorChecks.GlobalRaces)) GlobalRaces = new GlobalRaceChecker(this);
    }

    public KernelProgram Program { get; }
    public LaunchConfiguration Configuration { get; }
    public EmulatorOptions Options { get; }
    public SchedulingPolicy Policy => Options.Policy;
    public DeviceMemory Memory { get; }
    public int Multiprocessors { get; }
    public int ResidentBlocks { get; }
    public GlobalRaceChecker? GlobalRaces { get; }
    public IReadOnlyList<FaultReport> Reports => [.. _reports.Values];
    public LaunchProfile? Profile { get; private set; }
    public long WarpInstructions { get; private set; }
    public long ThreadInstructions { get; private set; }
    /// <summary>Bytes of global memory it read and wrote, when that is tracked.</summary>
    public Touches? Touches { get; private set; }
    /// <summary>What the kernel printed.</summary>
    public string Printed => _printed.ToString();

    public void Print(string text)
    {
        lock (_printed) _printed.Append(text);
    }

    private readonly System.Text.StringBuilder _printed = new();

    public ulong Clock => (ulong)Interlocked.Add(ref _clock, 32);
    private long _clock;

    /// <summary>The memory behind an address that is not of this device; null when there is none, or no peer access.</summary>
    public DeviceMemory? PeerMemory(ulong address) => _peer(address);

    public void Execute()
    {
        long blocks = Configuration.Grid.Count;
        int workers = (int)Math.Min(Options.Workers, blocks);
        bool counts = Options.Checks.HasFlag(EmulatorChecks.Counters);
        var counters = new InstructionCounter[counts ? Program.Count : 0];
        var gate = new Lock();
        void Worker()
        {
            var mine = new InstructionCounter[counters.Length];
            Touches? touches = _tracksTouches ? new Touches() : null;
            (long warp, long thread) = RunBlocks(mine, touches, counts, workers);
            lock (gate)
            {
                WarpInstructions += warp;
                ThreadInstructions += thread;
                for (int k = 0; k < counters.Length; k++) counters[k].Add(in mine[k]);
                if (Touches is null) Touches = touches;
                else if (touches is not null) Touches.Merge(touches);
            }
        }
        // The caller is one of the workers: most launches have little to do.
        var others = new Thread[workers - 1];
        for (int t = 0; t < others.Length; t++) (others[t] = new Thread(Worker) { Name = $"emulator worker {t}" }).Start();
        Worker();
        foreach (Thread other in others) other.Join();
        if (counts) Profile = new LaunchProfile(Program.Name, Program.Infos, counters) { DistinctBytes = Options.Checks.HasFlag(EmulatorChecks.Footprints) ? Touches!.Bytes : null };
        if (Touches is not null && !_stop) Touches.CheckReadOnly(this);
    }

    private (long Warp, long Thread) RunBlocks(InstructionCounter[] counters, Touches? touches, bool counts, int workers)
    {
        var resident = new List<Block>();
        var idle = new Stack<Block>();
        var all = new List<Block>();
        long blocks = Configuration.Grid.Count;
        int room = Configuration.Cooperative ? (int)blocks : Math.Max(1, ResidentBlocks / workers);
        var random = new SeededRandom(SeededRandom.Mix(Options.Seed, 0xB10C));
        L1Cache[]? caches = Options.Checks.HasFlag(EmulatorChecks.Footprints) ? [.. Enumerable.Range(0, (int)Math.Min(Multiprocessors, blocks)).Select(_ => new L1Cache(_l1Bytes))] : null;
        fixed (byte* parameters = _arguments.Length == 0 ? new byte[1] : _arguments)
        fixed (InstructionCounter* profile = counters)
        {
            try
            {
                int turn = 0;
                while (!_stop)
                {
                    // A new block starts when none is resident, or when all that are wait for something.
                    bool wantsMore = resident.Count == 0 || turn >= resident.Count && resident.Count < room || Configuration.Cooperative && resident.Count < room;
                    if (wantsMore && TakeBlock() is { } linear)
                    {
                        if (!idle.TryPop(out Block? block))
                        {
                            all.Add(block = new Block(this));
                            block.Attach(parameters, counts ? profile : null, touches is not null);
                            foreach (Warp warp in block.Warps) warp.Touches = touches;
                        }
                        block.Start(linear);
                        if (caches is not null)
                            foreach (Warp warp in block.Warps) warp.L1 = caches[linear % caches.Length];
                        resident.Add(block);
                        turn = resident.Count - 1;
                        continue;
                    }
                    if (resident.Count == 0) break;
                    if (turn >= resident.Count) turn = 0;
                    int chosen = Policy == SchedulingPolicy.Adversarial ? random.Below(resident.Count) : turn;
                    Block running = resident[chosen];
                    long slice = Policy switch
                    {
                        SchedulingPolicy.Converge => Options.BlockInstructions,
                        SchedulingPolicy.Fair => 10_000,
                        _ => 1_000 + random.Below(20_000),
                    };
                    if (running.Run(slice))
                    {
                        resident.RemoveAt(chosen);
                        idle.Push(running);
                        turn = 0;
                    }
                    else
                    {
                        turn++;
                    }
                }
            }
            catch (LaunchAbortedException)
            {
                _stop = true;
            }
            long warpTotal = 0, threadTotal = 0;
            foreach (Block block in all)
            {
                foreach (Warp warp in block.Warps)
                {
                    warpTotal += warp.Executed;
                    threadTotal += warp.ThreadsExecuted;
                }
                block.Dispose();
            }
            return (warpTotal, threadTotal);
        }
    }

    // Ascending, as hardware mostly does; adversarial: shuffled inside windows that can be resident together, so that a block may rely on
    // its predecessors being scheduled but not on their order.
    private long? TakeBlock()
    {
        long k = Interlocked.Increment(ref _nextBlock) - 1, blocks = Configuration.Grid.Count;
        if (Options.OuterBlocks is { } outer && blocks > 2 * outer.Count && k >= outer.Count)
        {
            long leftOut = blocks - 2 * outer.Count;
            // The first blocks have taken their numbers: each begins to run before another is taken.
            if (k == outer.Count && outer.Ticket?.Invoke(Program.Name, _arguments) is { } ticket) *(uint*)Memory.Host(ticket) += (uint)leftOut;
            k += leftOut;
        }
        if (k >= blocks) return null;
        if (Policy != SchedulingPolicy.Adversarial) return k;
        long window = Math.Max(1, Math.Min(16, ResidentBlocks)), start = k / window * window;
        int count = (int)Math.Min(window, blocks - start);
        Span<int> order = stackalloc int[count];
        for (int j = 0; j < count; j++) order[j] = j;
        var random = new SeededRandom(SeededRandom.Mix(Options.Seed, (ulong)start + 0x0DE5));
        for (int j = count - 1; j > 0; j--)
        {
            int other = random.Below(j + 1);
            (order[j], order[other]) = (order[other], order[j]);
        }
        return start + order[(int)(k - start)];
    }

    // ---- Reports --------------------------------------------------------------------------------------------------------------------

    /// <summary>Records a finding that need not end the launch.</summary>
    public void Report(Warp warp, Instruction* i, uint lanes, FaultKind kind, string message, int other = -1, string otherWho = "")
    {
        PtxInstruction source = Program.Source[i->Index];
        lock (_reports)
        {
            if (_reports.TryGetValue((kind, source.Line), out FaultReport? known))
            {
                known.Count++;
                return;
            }
            if (_reports.Keys.Select(key => key.Item1).Append(kind).Distinct().Count() > MaxKinds) return;
            int lane = lanes == 0 ? 0 : BitOperations.TrailingZeroCount(lanes);
            (int x, int y, int z) = warp.Block.ThreadCoordinates(warp.Index * 32 + lane);
            PtxInstruction? otherSource = other >= 0 ? Program.Source[other] : null;
            _reports[(kind, source.Line)] = new FaultReport
            {
                Kind = kind, Message = message, Kernel = Program.Name, Module = Program.ModuleName, PtxLine = source.Line, Instruction = source.Form,
                Source = source.Source?.ToString() ?? "", SourceFile = source.Source?.File ?? "", SourceLine = source.Source?.Line ?? 0,
                Other = otherSource is null ? otherWho : $"{otherSource.Form}  {otherSource.Source}  {otherWho}", OtherSourceLine = otherSource?.Source?.Line ?? 0,
                Where = $"grid {Configuration.Grid} block {Configuration.Block}, block {Tuple(warp.Block.Coordinates)} thread ({x},{y},{z}) warp {warp.Index} lane {lane}",
                Operands = Operands(warp, source, lane), Policy = Policy, Seed = Options.Seed,
            };
        }
        if (!Options.StopsAtFinding) return;
        _stop = true;
        lock (_reports) throw new LaunchAbortedException(_reports[(kind, source.Line)]);
    }

    /// <summary>Records a finding about an instruction of no particular thread.</summary>
    public void ReportAt(PtxInstruction source, FaultKind kind, string message, PtxInstruction? other)
    {
        lock (_reports)
        {
            if (_reports.TryGetValue((kind, source.Line), out FaultReport? known))
            {
                known.Count++;
                return;
            }
            _reports[(kind, source.Line)] = new FaultReport
            {
                Kind = kind, Message = message, Kernel = Program.Name, Module = Program.ModuleName, PtxLine = source.Line, Instruction = source.Form,
                Source = source.Source?.ToString() ?? "", SourceFile = source.Source?.File ?? "", SourceLine = source.Source?.Line ?? 0,
                Other = other is null ? "" : $"{other.Form}  {other.Source}", OtherSourceLine = other?.Source?.Line ?? 0,
                Where = $"grid {Configuration.Grid} block {Configuration.Block}", Policy = Policy, Seed = Options.Seed,
            };
        }
    }

    /// <summary>Records a finding that nothing can follow.</summary>
    public LaunchAbortedException Abort(Warp warp, Instruction* i, uint lanes, FaultKind kind, string message)
    {
        Report(warp, i, lanes, kind, message);
        _stop = true;
        lock (_reports) return new LaunchAbortedException(_reports.GetValueOrDefault((kind, Program.Source[i->Index].Line)) ?? _reports.Values.First());
    }

    private static string Tuple((int X, int Y, int Z) t) => $"({t.X},{t.Y},{t.Z})";

    private string Operands(Warp warp, PtxInstruction source, int lane)
    {
        var parts = new List<string>();
        void Add(PtxOperand operand)
        {
            if (operand.Register is { Slot: >= 0 } register)
            {
                if (register.IsPredicate)
                {
                    parts.Add($"{register.Name}={(*(uint*)(warp.Registers + register.Slot) >> lane & 1)}");
                    return;
                }
                ulong value = register.IsWide ? ((ulong*)(warp.Registers + register.Slot))[lane] : ((uint*)(warp.Registers + register.Slot))[lane];
                string extra = register.IsWide && Memory.Find(value) is { } owner ? $" ({owner}, offset 0x{value - owner.Address:X})" : "";
                parts.Add($"{register.Name}=0x{value:X}{extra}");
            }
            if (operand.Base is not null) Add(operand.Base);
            foreach (PtxOperand item in operand.Items) Add(item);
        }
        foreach (PtxOperand operand in source.Operands) Add(operand);
        return string.Join("  ", parts.Take(8));
    }
}
