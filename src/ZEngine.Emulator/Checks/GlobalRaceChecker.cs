using System.Runtime.CompilerServices;
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
        public int Clock, BlockClock, Instruction;
        public ushort Thread;
        public AccessKind Kind;
        public bool Exists;
    }

    private struct Cell
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

    private const int PageWords = 128;

    /// <summary>A cell per word, or one per byte once narrow accesses come: neighbouring narrow elements do not race.</summary>
    private sealed class Page
    {
        public readonly Cell[] Words = new Cell[PageWords];
        public readonly Cell[]?[] Split = new Cell[]?[PageWords];
    }

    private readonly Dictionary<ulong, Page> _pages = [];
    private Page? _lastPage;
    private ulong _lastNumber;
    private readonly Dictionary<long, BlockView> _views = [];
    private BlockView? _lastView;
    private long _lastBlock;
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
            var access = new Access { Block = block.Linear, Thread = (ushort)thread, Clock = block.Clocks.Clock(thread), BlockClock = view.Clock, Instruction = i->Index, Kind = kind, Exists = true };
            bool isWhole = ((address | (uint)bytes) & 3) == 0;
            // One finding per access is enough; the first place that clashes names it.
            string? clash = null;
            Access other = default;
            for (int k = 0; k < bytes; k += isWhole ? 4 : 1)
            {
                Page page = PageOf(address + (ulong)k);
                int word = (int)(address + (ulong)k >> 2 & PageWords - 1);
                Cell[]? split = page.Split[word];
                if (isWhole && split is null)
                {
                    Visit(ref page.Words[word], block, view, in access, isWrite, changesValue, ref clash, ref other);
                    continue;
                }
                if (split is null)
                {
                    page.Split[word] = split = new Cell[4];
                    Array.Fill(split, page.Words[word]);
                }
                int first = isWhole ? 0 : (int)(address + (ulong)k & 3);
                for (int part = first; part < (isWhole ? 4 : first + 1); part++) Visit(ref split[part], block, view, in access, isWrite, changesValue, ref clash, ref other);
            }
            if (clash is not null) Report(w, i, lane, address, clash, in other);
            if (kind != AccessKind.Plain && isWrite) Publish(block, view, thread, address, isRelease);
        }
    }

    private Page PageOf(ulong address)
    {
        ulong number = address / (4 * PageWords);
        if (_lastPage is not null && number == _lastNumber) return _lastPage;
        if (!_pages.TryGetValue(number, out Page? page)) _pages[number] = page = new Page();
        (_lastPage, _lastNumber) = (page, number);
        return page;
    }

    private static void Visit(ref Cell cell, Block block, BlockView view, in Access access, bool isWrite, bool changesValue, ref string? clash, ref Access other)
    {
        if (changesValue | !isWrite)
        {
            string what = isWrite ? "write after write" : "read after write";
            Check(block, view, in cell.Write, what, in access, ref clash, ref other);
            Check(block, view, in cell.OtherWrite, what, in access, ref clash, ref other);
        }
        if (isWrite)
        {
            Check(block, view, in cell.Read, "write after read", in access, ref clash, ref other);
            Check(block, view, in cell.OtherRead, "write after read", in access, ref clash, ref other);
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

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Check(Block block, BlockView view, in Access before, string what, in Access access, ref string? clash, ref Access other)
    {
        if (!before.Exists || clash is not null || !Clashes(block, view, in access, in before)) return;
        clash = what;
        other = before;
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
        if (now.Kind != AccessKind.Plain && before.Kind != AccessKind.Plain) return false;
        if (before.Block != now.Block) return view.Known.GetValueOrDefault(before.Block) < before.BlockClock;
        return !block.Clocks.Knows(now.Thread, before.Thread, before.Clock);
    }

    private unsafe void Report(Warp w, Instruction* i, int lane, ulong address, string what, in Access before)
    {
        long x = before.Block % launch.Configuration.Grid.X;
        string who = before.Block == w.Block.Linear ? $"thread {before.Thread} of the same block, no barrier between" : $"block {before.Block} (x = {x}) thread {before.Thread}, nothing orders the two";
        launch.Report(w, i, 1u << lane, FaultKind.GlobalRace, $"{what} of {launch.Memory.Find(address)?.ToString() ?? $"0x{address:X}"} at 0x{address:X}", before.Instruction, who);
    }

    private BlockView View(long block)
    {
        if (_lastView is not null && block == _lastBlock) return _lastView;
        if (!_views.TryGetValue(block, out BlockView? view)) _views[block] = view = new BlockView();
        (_lastView, _lastBlock) = (view, block);
        return view;
    }

    private static void Join(Dictionary<long, int> into, Dictionary<long, int> from)
    {
        foreach ((long block, int clock) in from) into[block] = Math.Max(clock, into.GetValueOrDefault(block));
    }
}
