using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ZEngine.Emulator.Checks;
using ZEngine.Emulator.Memory;

namespace ZEngine.Emulator.Execution;

internal enum WarpStatus : byte { Yielded, AtBarrier, Done }

/// <summary>
/// A warp: its registers, and its lanes as fragments that each have a place of their own. Usually there is one fragment; a divergent branch
/// splits it, and the policy says when parts run and meet again.
/// </summary>
internal sealed unsafe class Warp : IDisposable
{
    public readonly byte* Registers;
    public readonly Block Block;
    public readonly KernelLaunch Launch;
    public readonly DeviceMemory Memory;
    public readonly int Index;
    public byte* Shared;
    public uint SharedBytes;
    public byte* Parameters;
    public byte* Local;
    public uint* LocalWritten;
    public InstructionCounter* Profile;
    public bool ChecksUninitialised, ChecksSharedRaces, TracksTouches, ChecksGlobalRaces, IsPlain;
    /// <summary>Lanes that exist, and those that have not exited.</summary>
    public uint Initial, Live;
    /// <summary>Asynchronous copies its lanes have issued and not yet waited for.</summary>
    public readonly AsyncCopies Copies;
    public long Executed, ThreadsExecuted;
    public WarpStatus Status;
    public Touches? Touches;
    /// <summary>Of the multiprocessor of its block, where what misses it is counted.</summary>
    public L1Cache? L1;

    private readonly KernelProgram _program;
    private Fragment[] _fragments = new Fragment[8];
    private int _count;
    private int _current;

    public Warp(Block block, int index)
    {
        Block = block;
        Launch = block.Launch;
        Memory = Launch.Memory;
        Index = index;
        _program = Launch.Program;
        Registers = ScratchMemory.Rent((nuint)_program.RegisterBytes + 64);
        // Not zero: a register that is read before it is written should not look like a reasonable value.
        new Span<byte>(Registers, _program.RegisterBytes).Fill(0xCB);
        foreach ((int slot, ulong value, bool isWide) in _program.Constants) FillRegister(slot, value, isWide);
        if (_program.LocalBytes > 0)
        {
            Local = (byte*)NativeMemory.AllocZeroed((nuint)_program.LocalBytes * 32);
            LocalWritten = (uint*)NativeMemory.AllocZeroed((nuint)_program.LocalBytes * sizeof(uint));
        }
        Copies = new AsyncCopies(this);
    }

    public int LaneCount => BitOperations.PopCount(Initial);
    public Span<Fragment> Fragments => _fragments.AsSpan(0, _count);

    public void FillRegister(int slot, ulong value, bool isWide)
    {
        if (isWide) new Span<ulong>(Registers + slot, 32).Fill(value);
        else new Span<uint>(Registers + slot, 32).Fill((uint)value);
    }

    /// <summary>Begins a block: all lanes at the first instruction.</summary>
    public void Start(int lanes)
    {
        Initial = Live = lanes == 32 ? uint.MaxValue : (1u << lanes) - 1;
        _fragments[0] = new Fragment { Mask = Initial };
        _count = 1;
        Status = WarpStatus.Yielded;
        Copies.Clear();
        if (Local != null)
        {
            if (ChecksUninitialised) NativeMemory.Clear(LocalWritten, (nuint)_program.LocalBytes * sizeof(uint));
            NativeMemory.Fill(Local, (nuint)_program.LocalBytes * 32, 0xCB);
        }
        if (Launch.Policy == SchedulingPolicy.Adversarial) Shatter(0);
    }

    // ---- The run loop --------------------------------------------------------------------------------------------------------------

    /// <summary>Runs until the warp waits for the block, has exited, or has used up its slice.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public WarpStatus Run(long slice)
    {
        Instruction* code = _program.Code;
        SchedulingPolicy policy = Launch.Policy;
        bool isAdversarial = policy == SchedulingPolicy.Adversarial;
        InstructionCounter* profile = Profile;
        while (true)
        {
            int chosen = Choose();
            if (chosen < 0) return Status = _count == 0 ? WarpStatus.Done : AllWaitForBlock() ? WarpStatus.AtBarrier : Stuck();
            _current = chosen;
            int pc = _fragments[chosen].Pc;
            uint mask = _fragments[chosen].Mask;
            int active = BitOperations.PopCount(mask);
            bool isAlone = _count == 1;
            long executed = 0;
            // How long this fragment may run while others are ready.
            long turn = isAlone ? slice : isAdversarial ? 1 + Block.Random.Below(64) : policy == SchedulingPolicy.Fair ? 64 : 4096;
            if (isAdversarial) turn = Math.Min(turn, slice);
            while (true)
            {
                Instruction* i = code + pc;
                if (i->Kind == InstructionKind.Normal)
                {
                    uint m = mask;
                    if (i->Guard >= 0)
                    {
                        uint p = *(uint*)(Registers + i->Guard);
                        m &= i->GuardNegated ? ~p : p;
                    }
                    executed++;
                    if (profile != null)
                    {
                        profile[pc].Executions++;
                        profile[pc].Threads += BitOperations.PopCount(m);
                    }
                    if (m == uint.MaxValue) i->Full(this, i, m);
                    else if (m != 0) i->Partial(this, i, m);
                    pc++;
                    // Lanes that took another way may wait at the start of a block; meet them there.
                    if (!isAlone && (code[pc].StartsBlock || executed >= turn))
                    {
                        _fragments[chosen].Pc = pc;
                        break;
                    }
                    continue;
                }
                _fragments[chosen].Pc = pc;
                if (profile != null && i->Kind is not (InstructionKind.Collective or InstructionKind.Barrier))
                {
                    profile[pc].Executions++;
                    profile[pc].Threads += active;
                }
                executed++;
                if (i->Kind == InstructionKind.Branch)
                {
                    uint taken = mask;
                    if (i->Guard >= 0)
                    {
                        uint p = *(uint*)(Registers + i->Guard);
                        taken &= i->GuardNegated ? ~p : p;
                    }
                    if (taken == mask) pc = i->Target;
                    else if (taken == 0) pc++;
                    else
                    {
                        if (profile != null) profile[pc].Divergent++;
                        Split(chosen, i->Target, taken);
                        break;
                    }
                    if (!isAlone || executed >= turn)
                    {
                        _fragments[chosen].Pc = pc;
                        break;
                    }
                    continue;
                }
                if (!Step(chosen, i, mask)) break;
                // The warp instruction ran with the same lanes: go on without a new choice.
                pc++;
                _fragments[chosen].Pc = pc;
                if (!isAlone || isAdversarial || executed >= turn) break;
            }
            Executed += executed;
            ThreadsExecuted += executed * active;
            slice -= executed;
            Block.Budget -= executed;
            if (Block.Budget < 0) throw Launch.Abort(this, code + Math.Min(pc, _program.Count - 1), mask, FaultKind.Timeout,
                $"the block executed more than {Launch.Options.WatchdogInstructions} warp instructions; it probably waits for something that never comes");
            if (slice <= 0) return Status = _count == 0 ? WarpStatus.Done : AllWaitForBlock() ? WarpStatus.AtBarrier : WarpStatus.Yielded;
        }
    }

    /// <summary>Everything but plain instructions and branches. True: executed, and the same lanes go on.</summary>
    private bool Step(int chosen, Instruction* i, uint mask)
    {
        if (i->Guard >= 0)
        {
            uint p = *(uint*)(Registers + i->Guard);
            uint taken = mask & (i->GuardNegated ? ~p : p);
            if (taken == 0)
            {
                return true;
            }
            if (taken != mask)
            {
                // The lanes that skip it go on by themselves.
                Add(new Fragment { Pc = i->Index + 1, Mask = mask & ~taken, Frame = _fragments[chosen].Frame });
                _fragments[chosen].Mask = mask = taken;
                if (i->Kind is InstructionKind.Collective or InstructionKind.Barrier) return false;
            }
        }
        switch (i->Kind)
        {
            case InstructionKind.Exit:
                Exit(chosen, mask);
                return false;
            case InstructionKind.Return:
                CallFrame? frame = _fragments[chosen].Frame;
                if (frame is null)
                {
                    Exit(chosen, mask);
                    return false;
                }
                _fragments[chosen].Pc = frame.ReturnTo;
                _fragments[chosen].Frame = frame.Caller;
                return false;
            case InstructionKind.Call:
                i->Full(this, i, mask);
                _fragments[chosen].Frame = new CallFrame(i->Index + 1, _fragments[chosen].Frame);
                _fragments[chosen].Pc = i->Target;
                return false;
            case InstructionKind.Yield:
                i->Full(this, i, mask);
                _fragments[chosen].Pc = i->Index + 1;
                return false;
            case InstructionKind.Barrier:
                return ArriveAtBarrier(chosen, i, mask);
            default:
                return ArriveAtCollective(chosen, i, mask);
        }
    }

    private void Exit(int chosen, uint mask)
    {
        Copies.DropUnwaited(mask);
        Live &= ~mask;
        RemoveAt(chosen);
    }

    // ---- Warp instructions ------------------------------------------------------------------------------------------------------------

    private bool ArriveAtCollective(int chosen, Instruction* i, uint mask)
    {
        uint members = Initial;
        if (i->MemberMask >= 0)
        {
            var named = (uint*)(Registers + i->MemberMask);
            members = named[BitOperations.TrailingZeroCount(mask)];
            uint same = 0;
            for (uint rest = mask; rest != 0; rest &= rest - 1)
            {
                int lane = BitOperations.TrailingZeroCount(rest);
                if (named[lane] == members) same |= 1u << lane;
            }
            if (same != mask)
            {
                // Lanes that name another mask form a group of their own.
                Add(new Fragment { Pc = i->Index, Mask = mask & ~same, Frame = _fragments[chosen].Frame });
                _fragments[chosen].Mask = same;
                return false;
            }
            if ((mask & ~members) != 0)
            {
                Launch.Report(this, i, mask & ~members, FaultKind.MemberMask, $"a lane executes this with member mask 0x{members:x8}, which does not include it");
                members |= mask;
            }
        }
        uint need = members & Live;
        if ((need & ~mask) != 0)
        {
            _fragments[chosen].State = FragmentState.WaitsForLanes;
            _fragments[chosen].Members = members;
            return false;
        }
        if (i->IsAligned && Live != Initial)
            Launch.Report(this, i, mask, FaultKind.MemberMask, $"all lanes must execute this, but lanes 0x{Initial & ~Live:x8} have exited");
        Execute(i, mask);
        if (Launch.Policy == SchedulingPolicy.Adversarial)
        {
            _fragments[chosen].Pc = i->Index + 1;
            Shatter(chosen);
            return false;
        }
        return true;
    }

    private void Execute(Instruction* i, uint mask)
    {
        if (Profile != null)
        {
            Profile[i->Index].Executions++;
            Profile[i->Index].Threads += BitOperations.PopCount(mask);
        }
        i->Full(this, i, mask);
    }

    private bool ArriveAtBarrier(int chosen, Instruction* i, uint mask)
    {
        if (mask != Live)
        {
            _fragments[chosen].State = FragmentState.WaitsForLanes;
            _fragments[chosen].Members = Initial;
            return false;
        }
        if (Live != Initial)
            Launch.Report(this, i, mask, FaultKind.DivergentBarrier, $"lanes 0x{Initial & ~Live:x8} of the warp have exited and never reach this barrier");
        if (Profile != null)
        {
            Profile[i->Index].Executions++;
            Profile[i->Index].Threads += BitOperations.PopCount(mask);
        }
        _fragments[chosen].Pc = i->Index + 1;
        _fragments[chosen].State = FragmentState.WaitsForBlock;
        if (Block.Barriers.Arrive(this, i, mask)) return false;
        _fragments[chosen].State = FragmentState.Ready;
        if (Launch.Policy == SchedulingPolicy.Adversarial) Shatter(chosen);
        return false;
    }

    /// <summary>The block's barrier opened.</summary>
    public void Release()
    {
        for (int f = 0; f < _count; f++) if (_fragments[f].State == FragmentState.WaitsForBlock) _fragments[f].State = FragmentState.Ready;
        Status = WarpStatus.Yielded;
        if (Launch.Policy == SchedulingPolicy.Adversarial) Shatter(0);
    }

    // ---- Fragments ------------------------------------------------------------------------------------------------------------------

    private void Add(Fragment fragment)
    {
        if (_count == _fragments.Length) Array.Resize(ref _fragments, 2 * _count);
        _fragments[_count++] = fragment;
    }

    private void RemoveAt(int index)
    {
        _fragments[index] = _fragments[--_count];
        _fragments[_count] = default;
    }

    private void Split(int chosen, int target, uint taken)
    {
        Fragment other = _fragments[chosen];
        other.Pc = target;
        other.Mask = taken;
        _fragments[chosen].Mask &= ~taken;
        _fragments[chosen].Pc++;
        Add(other);
    }

    /// <summary>Splits a fragment at random, as lanes may on hardware at any time.</summary>
    private void Shatter(int index)
    {
        while (true)
        {
            uint mask = _fragments[index].Mask;
            ulong random = Block.Random.Next();
            uint part = mask & (uint)random;
            // Some of the time the warp stays whole: code that only works when split is wrong too.
            if ((random >> 32 & 3) == 0 || part == 0 || part == mask) return;
            Fragment other = _fragments[index];
            other.Mask = part;
            _fragments[index].Mask = mask & ~part;
            Add(other);
            if ((random >> 34 & 1) == 0) return;
        }
    }

    private bool AllWaitForBlock()
    {
        for (int f = 0; f < _count; f++) if (_fragments[f].State != FragmentState.WaitsForBlock) return false;
        return true;
    }

    /// <summary>Merges what may meet and picks the fragment that runs next; -1 when none can.</summary>
    private int Choose()
    {
        if (_count == 1) return IsRunnable(0) ? 0 : -1;
        Merge();
        int ready = 0, best = -1;
        for (int f = 0; f < _count; f++)
        {
            if (!IsRunnable(f)) continue;
            ready++;
            if (best < 0 || RunsBefore(in _fragments[f], in _fragments[best])) best = f;
        }
        if (ready <= 1 || Launch.Policy == SchedulingPolicy.Converge && !(_turns++ % 64 == 63)) return best;
        // Random, or every one in turn; also now and then under Converge, so that a lane which spins on another lets it run.
        int pick = Launch.Policy == SchedulingPolicy.Adversarial ? Block.Random.Below(ready) : (int)(_rotation++ % ready);
        for (int f = 0; f < _count; f++) if (IsRunnable(f) && pick-- == 0) return f;
        return best;
    }

    private int _turns;
    private uint _rotation;

    private bool IsRunnable(int f)
    {
        ref Fragment fragment = ref _fragments[f];
        if (fragment.State == FragmentState.WaitsForLanes && (fragment.Members & Live & ~fragment.Mask) == 0) fragment.State = FragmentState.Ready;
        return fragment.State == FragmentState.Ready;
    }

    // Deepest call first, then lowest address: that is where lanes are most likely to meet again.
    private static bool RunsBefore(in Fragment a, in Fragment b)
    {
        int depthA = a.Frame?.Depth ?? 0, depthB = b.Frame?.Depth ?? 0;
        return depthA != depthB ? depthA > depthB : a.Pc < b.Pc;
    }

    private void Merge()
    {
        bool meetsAnywhere = Launch.Policy != SchedulingPolicy.Adversarial;
        for (int a = 0; a < _count; a++)
        {
            if (!meetsAnywhere && _fragments[a].State != FragmentState.WaitsForLanes) continue;
            for (int b = a + 1; b < _count;)
            {
                ref Fragment x = ref _fragments[a], y = ref _fragments[b];
                bool bothWait = x.State == FragmentState.WaitsForLanes && y.State == FragmentState.WaitsForLanes && x.Members == y.Members;
                bool bothReady = meetsAnywhere && x.State == FragmentState.Ready && y.State == FragmentState.Ready;
                if (x.Pc != y.Pc || !(bothWait || bothReady) || x.Frame != y.Frame)
                {
                    b++;
                    continue;
                }
                x.Mask |= y.Mask;
                RemoveAt(b);
            }
        }
    }

    /// <summary>No fragment can run, and not all wait for the block: name what each one waits for.</summary>
    private WarpStatus Stuck()
    {
        var parts = new List<string>();
        FaultKind kind = FaultKind.Deadlock;
        Instruction* first = null;
        foreach (ref Fragment fragment in Fragments)
        {
            int pc = fragment.State == FragmentState.WaitsForBlock ? fragment.Pc - 1 : fragment.Pc;
            Instruction* i = _program.Code + pc;
            if (first == null) first = i;
            if (i->Kind == InstructionKind.Barrier)
            {
                kind = FaultKind.DivergentBarrier;
                first = i;
            }
            else if (kind == FaultKind.Deadlock && i->Kind == InstructionKind.Collective) kind = FaultKind.MemberMask;
            parts.Add($"lanes 0x{fragment.Mask:x8} at {_program.Source[pc].Form} ({_program.Source[pc].Source?.ToString() ?? "?"})"
                + (fragment.State == FragmentState.WaitsForBlock ? " wait for the block" : $" wait for lanes 0x{fragment.Members & Live & ~fragment.Mask:x8}"));
        }
        throw Launch.Abort(this, first, Live, kind, "lanes of one warp wait at different places: " + string.Join("; ", parts));
    }

    public void Dispose()
    {
        ScratchMemory.Return(Registers, (nuint)_program.RegisterBytes + 64);
        NativeMemory.Free(Local);
        NativeMemory.Free(LocalWritten);
    }
}
