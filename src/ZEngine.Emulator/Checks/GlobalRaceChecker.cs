using ZEngine.Emulator.Execution;

namespace ZEngine.Emulator.Checks;

/// <summary>
/// Finds conflicting accesses of global memory within one launch. Between blocks, order comes only from a fence followed by a strong
/// access of a flag, and a strong access that reads it; within a block from its barriers.
/// </summary>
internal sealed class GlobalRaceChecker(KernelLaunch launch)
{
    private struct Access
    {
        public long Block;
        public int Thread, Clock, BlockClock, Instruction;
        public AccessKind Kind;
        public bool Exists;
    }

    private sealed class Cell
    {
        // The last of each kind, and the last of another block than that.
        public Access Write, OtherWrite, Read, OtherRead;
    }

    private sealed class BlockView
    {
        public int Clock = 1;
        public readonly Dictionary<long, int> Known = [];
        public readonly Dictionary<int, Dictionary<long, int>> Fenced = [];
    }

    // Keyed by byte address: races of neighbouring narrow elements are none.
    private readonly Dictionary<ulong, Cell> _cells = [];
    private readonly Dictionary<long, BlockView> _views = [];
    private readonly Dictionary<ulong, Dictionary<long, int>> _published = [];
    private readonly Lock _gate = new();

    public unsafe void Record(Warp w, Instruction* i, int lane, ulong address, int bytes, bool isWrite, AccessKind kind, bool changesValue, bool isRelease)
    {
        lock (_gate)
        {
            Block block = w.Block;
            BlockView view = View(block.Linear);
            int thread = w.Index * 32 + lane;
            if (kind != AccessKind.Plain)
            {
                block.Clocks.Acquire(thread, address);
                if (_published.TryGetValue(address, out Dictionary<long, int>? published)) Join(view.Known, published);
            }
            var access = new Access { Block = block.Linear, Thread = thread, Clock = block.Clocks.Clock(thread), BlockClock = view.Clock, Instruction = i->Index, Kind = kind, Exists = true };
            // One finding per access is enough; the first byte that clashes names it.
            bool reported = false;
            for (int k = 0; k < bytes; k++)
            {
                if (!_cells.TryGetValue(address + (ulong)k, out Cell? cell)) _cells[address + (ulong)k] = cell = new Cell();
                if (!reported && changesValue | !isWrite && Clashes(block, view, in access, in cell.Write)) reported = Report(w, i, lane, address, isWrite ? "write after write" : "read after write", in cell.Write);
                if (!reported && changesValue | !isWrite && Clashes(block, view, in access, in cell.OtherWrite)) reported = Report(w, i, lane, address, isWrite ? "write after write" : "read after write", in cell.OtherWrite);
                if (isWrite)
                {
                    if (!reported && Clashes(block, view, in access, in cell.Read)) reported = Report(w, i, lane, address, "write after read", in cell.Read);
                    if (!reported && Clashes(block, view, in access, in cell.OtherRead)) reported = Report(w, i, lane, address, "write after read", in cell.OtherRead);
                    if (cell.Write.Exists && cell.Write.Block != access.Block) cell.OtherWrite = cell.Write;
                    cell.Write = access;
                    cell.Read = cell.OtherRead = default;
                }
                else
                {
                    if (cell.Read.Exists && cell.Read.Block != access.Block) cell.OtherRead = cell.Read;
                    cell.Read = access;
                }
            }
            if (kind != AccessKind.Plain && isWrite) Publish(block, view, thread, address, isRelease);
        }
    }

    /// <summary>A fence of device scope: what the thread's block did so far may be published.</summary>
    public void Fence(Block block, int thread)
    {
        lock (_gate)
        {
            BlockView view = View(block.Linear);
            var known = new Dictionary<long, int>(view.Known) { [block.Linear] = view.Clock++ };
            view.Fenced[thread] = known;
        }
    }

    private void Publish(Block block, BlockView view, int thread, ulong address, bool isRelease)
    {
        block.Clocks.Publish(thread, address, isRelease);
        if (isRelease) Fence(block, thread);
        if (!view.Fenced.TryGetValue(thread, out Dictionary<long, int>? fenced)) return;
        if (!_published.TryGetValue(address, out Dictionary<long, int>? published)) _published[address] = published = [];
        Join(published, fenced);
    }

    private static bool Clashes(Block block, BlockView view, in Access now, in Access before)
    {
        if (!before.Exists || now.Kind != AccessKind.Plain && before.Kind != AccessKind.Plain) return false;
        if (before.Block != now.Block) return view.Known.GetValueOrDefault(before.Block) < before.BlockClock;
        return !block.Clocks.Knows(now.Thread, before.Thread, before.Clock);
    }

    private unsafe bool Report(Warp w, Instruction* i, int lane, ulong address, string what, in Access before)
    {
        long x = before.Block % launch.Configuration.Grid.X;
        string who = before.Block == w.Block.Linear ? $"thread {before.Thread} of the same block, no barrier between" : $"block {before.Block} (x = {x}) thread {before.Thread}, nothing orders the two";
        launch.Report(w, i, 1u << lane, FaultKind.GlobalRace, $"{what} of {launch.Memory.Find(address)?.ToString() ?? $"0x{address:X}"} at 0x{address:X}", before.Instruction, who);
        return true;
    }

    private BlockView View(long block)
    {
        if (!_views.TryGetValue(block, out BlockView? view)) _views[block] = view = new BlockView();
        return view;
    }

    private static void Join(Dictionary<long, int> into, Dictionary<long, int> from)
    {
        foreach ((long block, int clock) in from) into[block] = Math.Max(clock, into.GetValueOrDefault(block));
    }
}
