using System.Numerics;

namespace ZEngine.Emulator.Execution;

internal enum BarrierOperation { Sync, Arrive, RedPopc, RedAnd, RedOr }

/// <summary>The 16 named barriers of a block.</summary>
internal sealed unsafe class BlockBarriers(Block block)
{
    private const int NamedBarriers = 16;

    /// <summary>What an instruction's operands are: Flags holds the operation, X[4] the barrier, X[5] the thread count or -1, X[6] the predicate.</summary>
    public const int NegatedPredicate = 256;

    private sealed class State
    {
        public readonly List<(Warp Warp, int Instruction, uint Mask)> Waiting = [];
        public readonly List<(Warp Warp, int Instruction)> Arrived = [];
        public int Threads;
        public int Expected = -1;
        public bool IsWholeBlock;
        public int Popc;
        public bool And = true, Or;

        public void Clear()
        {
            Waiting.Clear();
            Arrived.Clear();
            Threads = 0;
            Expected = -1;
            Popc = 0;
            And = true;
            Or = false;
        }
    }

    private readonly State[] _states = [.. Enumerable.Range(0, NamedBarriers).Select(_ => new State())];
    private readonly List<Warp> _participants = [], _waiting = [];
    private readonly List<(Warp Warp, int Instruction, uint Mask)> _released = [];
    private readonly bool _tracksOrder = block.Shadow is not null || block.Launch.GlobalRaces is not null;
    private int _ended;

    /// <summary>How often all threads of the block have met: accesses of different generations are ordered.</summary>
    public int Generation { get; private set; }

    public void Reset()
    {
        _ended = 0;
        Generation++;
        foreach (State state in _states) state.Clear();
    }

    /// <summary>A warp arrives with all its lanes. True when it must wait until it is released.</summary>
    public bool Arrive(Warp warp, Instruction* i, uint mask)
    {
        int lane = BitOperations.TrailingZeroCount(mask);
        uint id = Uniform(warp, i, mask, i->X[4], lane);
        if (id >= NamedBarriers) throw block.Launch.Abort(warp, i, mask, FaultKind.BarrierCount, $"barrier {id} does not exist; there are {NamedBarriers}");
        State state = _states[id];
        var operation = (BarrierOperation)(i->Flags & 255);
        bool isWholeBlock = i->X[5] < 0;
        int expected = isWholeBlock ? block.Warps.Length * 32 : (int)Uniform(warp, i, mask, i->X[5], lane);
        if (expected <= 0 || expected % 32 != 0)
            throw block.Launch.Abort(warp, i, mask, FaultKind.BarrierCount, $"barrier {id} for {expected} threads: the count must be a positive multiple of 32");
        if (expected > block.Warps.Length * 32)
            throw block.Launch.Abort(warp, i, mask, FaultKind.BarrierCount, $"barrier {id} waits for {expected} threads, but the block has {block.Launch.Configuration.Block.Count}");
        if (state.Expected >= 0 && state.Expected != expected)
            throw block.Launch.Abort(warp, i, mask, FaultKind.BarrierCount, $"barrier {id} for {expected} threads, but other warps wait at it for {state.Expected}");
        if (state.Arrived.Exists(entry => entry.Warp == warp) || state.Waiting.Exists(entry => entry.Warp == warp))
            block.Launch.Report(warp, i, mask, FaultKind.BarrierCount, $"the warp arrives at barrier {id} again before the barrier has opened for its last arrival");
        state.Expected = expected;
        state.IsWholeBlock = isWholeBlock;
        state.Threads += 32;
        if (operation >= BarrierOperation.RedPopc)
        {
            uint predicate = *(uint*)(warp.Registers + i->X[6]);
            if ((i->Flags & NegatedPredicate) != 0) predicate = ~predicate;
            state.Popc += BitOperations.PopCount(predicate & mask);
            state.And &= (predicate & mask) == mask;
            state.Or |= (predicate & mask) != 0;
        }
        if (operation == BarrierOperation.Arrive) state.Arrived.Add((warp, i->Index));
        else state.Waiting.Add((warp, i->Index, mask));
        if (state.Threads >= expected) Open(state);
        return operation != BarrierOperation.Arrive;
    }

    private uint Uniform(Warp warp, Instruction* i, uint mask, int slot, int lane)
    {
        var values = (uint*)(warp.Registers + slot);
        for (uint rest = mask; rest != 0; rest &= rest - 1)
            if (values[BitOperations.TrailingZeroCount(rest)] != values[lane])
                throw block.Launch.Abort(warp, i, mask, FaultKind.BarrierCount, "lanes of one warp name different barriers or counts");
        return values[lane];
    }

    private void Open(State state)
    {
        _participants.Clear();
        _waiting.Clear();
        foreach ((Warp warp, _, _) in state.Waiting) _waiting.Add(warp);
        _participants.AddRange(_waiting);
        foreach ((Warp warp, _) in state.Arrived) _participants.Add(warp);
        if (_waiting.Count == block.Warps.Length) Generation++;
        if (_tracksOrder) block.Clocks.Meet(_participants, _waiting);
        KernelProgram program = block.Launch.Program;
        _released.Clear();
        _released.AddRange(state.Waiting);
        int popc = state.Popc;
        bool and = state.And, or = state.Or;
        state.Clear();
        foreach ((Warp warp, int index, uint mask) in _released)
        {
            Instruction* i = program.Code + index;
            switch ((BarrierOperation)(i->Flags & 255))
            {
                case BarrierOperation.RedPopc:
                    var d = (uint*)(warp.Registers + i->X[0]);
                    for (uint rest = mask; rest != 0; rest &= rest - 1) d[BitOperations.TrailingZeroCount(rest)] = (uint)popc;
                    break;
                case BarrierOperation.RedAnd: LaneOps.StorePredicate(warp, i->X[0], mask, and ? uint.MaxValue : 0); break;
                case BarrierOperation.RedOr: LaneOps.StorePredicate(warp, i->X[0], mask, or ? uint.MaxValue : 0); break;
            }
            warp.Release();
        }
    }

    public void WarpEnded(Warp warp) => _ended++;

    /// <summary>
    /// Whether a barrier waits only for warps that have exited. Hardware lets the others pass; CUDA leaves it undefined, so it is reported
    /// and then passed.
    /// </summary>
    public bool TryUnblock()
    {
        foreach (State state in _states)
        {
            if (!state.IsWholeBlock || state.Waiting.Count == 0 || state.Threads + 32 * _ended < state.Expected) continue;
            (Warp warp, int index, uint mask) = state.Waiting[0];
            block.Launch.Report(warp, block.Launch.Program.Code + index, mask, FaultKind.DivergentBarrier, $"{_ended} warps of the block have exited and never reach this barrier");
            Open(state);
            return true;
        }
        return false;
    }

    public void BlockEnded()
    {
        for (int id = 0; id < NamedBarriers; id++)
        {
            State state = _states[id];
            if (state.Arrived.Count == 0) continue;
            (Warp warp, int index) = state.Arrived[0];
            block.Launch.Report(warp, block.Launch.Program.Code + index, warp.Initial, FaultKind.BarrierCount,
                $"the block ended while barrier {id} had {state.Threads} of {state.Expected} threads");
        }
    }

    public void Deadlocked()
    {
        var parts = new List<string>();
        (Warp Warp, int Instruction, uint Mask)? first = null;
        for (int id = 0; id < NamedBarriers; id++)
        {
            State state = _states[id];
            if (state.Waiting.Count == 0) continue;
            first ??= state.Waiting[0];
            parts.Add($"barrier {id} has {state.Threads} of {state.Expected} threads (waiting warps {string.Join(' ', state.Waiting.Select(entry => entry.Warp.Index))})");
        }
        (Warp warp, int index, uint mask) = first!.Value;
        throw block.Launch.Abort(warp, block.Launch.Program.Code + index, mask, FaultKind.DivergentBarrier, "no warp can go on: " + string.Join("; ", parts));
    }
}
