using System.Runtime.InteropServices;
using ZEngine.Emulator.Checks;
using ZEngine.Emulator.Memory;

namespace ZEngine.Emulator.Execution;

/// <summary>A thread block: its warps, shared memory and barriers. One object serves many blocks of a grid, one after the other.</summary>
internal sealed unsafe class Block : IDisposable
{
    /// <summary>
    /// Shared addresses carry the block's rank in its cluster, plus one, in the top byte, so null is never valid and an offset that lost
    /// its base is noticed.
    /// </summary>
    public const uint SharedBase = 1u << 24;

    public readonly KernelLaunch Launch;
    public readonly Warp[] Warps;
    public readonly BlockBarriers Barriers;
    public readonly byte* Shared;
    public readonly uint SharedBytes;
    public readonly byte* SharedWritten;
    public readonly SharedShadow? Shadow;
    public readonly BlockClocks Clocks;
    public SeededRandom Random;
    public long Budget;
    public long Linear;
    public (int X, int Y, int Z) Coordinates;
    private readonly int[] _order;

    public Block(KernelLaunch launch)
    {
        Launch = launch;
        int threads = (int)launch.Configuration.Block.Count, warps = (threads + 31) / 32;
        SharedBytes = (uint)(launch.Program.DynamicSharedOffset + launch.Configuration.DynamicSharedBytes);
        SharedBytes = Math.Max(SharedBytes, (uint)launch.Program.StaticSharedBytes);
        Shared = ScratchMemory.Rent(SharedBytes + 64);
        SharedWritten = (byte*)NativeMemory.AllocZeroed(SharedBytes / 8 + 16);
        Clocks = new BlockClocks(warps * 32);
        if (launch.Options.Checks.HasFlag(EmulatorChecks.SharedRaces)) Shadow = new SharedShadow(SharedBytes, warps);
        Barriers = new BlockBarriers(this);
        Warps = new Warp[warps];
        for (int w = 0; w < warps; w++)
            Warps[w] = new Warp(this, w)
            {
                Shared = Shared,
                SharedBytes = SharedBytes,
                ChecksUninitialised = launch.Options.Checks.HasFlag(EmulatorChecks.Uninitialised),
                ChecksSharedRaces = Shadow is not null,
                ChecksGlobalRaces = launch.GlobalRaces is not null,
            };
        _order = [.. Enumerable.Range(0, warps)];
    }

    /// <summary>Attaches the block to the worker that will run it.</summary>
    public void Attach(byte* parameters, InstructionCounter* profile, bool tracksTouches)
    {
        foreach (Warp warp in Warps)
        {
            warp.Parameters = parameters;
            warp.Profile = profile;
            warp.TracksTouches = tracksTouches;
            warp.IsPlain = !warp.ChecksUninitialised && !warp.ChecksGlobalRaces && !tracksTouches && profile == null;
        }
    }

    public void Start(long linear)
    {
        Linear = linear;
        Interop.Dim3 grid = Launch.Configuration.Grid, block = Launch.Configuration.Block;
        Coordinates = ((int)(linear % grid.X), (int)(linear / grid.X % grid.Y), (int)(linear / grid.X / grid.Y));
        Random = new SeededRandom(SeededRandom.Mix(Launch.Options.Seed, (ulong)linear + 1));
        Budget = Launch.Options.WatchdogInstructions;
        NativeMemory.Fill(Shared, SharedBytes, 0xCB);
        if (Launch.Options.Checks.HasFlag(EmulatorChecks.Uninitialised)) NativeMemory.Clear(SharedWritten, SharedBytes / 8 + 16);
        if (Shadow is not null || Launch.GlobalRaces is not null) Clocks.Reset();
        Shadow?.Reset();
        Barriers.Reset();
        int threads = (int)block.Count;
        foreach (Warp warp in Warps)
        {
            warp.Start(Math.Min(32, threads - warp.Index * 32));
            SpecialRegisters.Fill(warp, Coordinates);
        }
    }

    /// <summary>Runs its warps for about so many instructions. True when the block has finished.</summary>
    public bool Run(long slice)
    {
        SchedulingPolicy policy = Launch.Policy;
        while (slice > 0)
        {
            bool ran = false, allDone = true;
            if (policy == SchedulingPolicy.Adversarial)
                for (int k = _order.Length - 1; k > 0; k--)
                {
                    int j = Random.Below(k + 1);
                    (_order[k], _order[j]) = (_order[j], _order[k]);
                }
            foreach (int w in _order)
            {
                Warp warp = Warps[w];
                if (warp.Status == WarpStatus.Done) continue;
                allDone = false;
                if (warp.Status == WarpStatus.AtBarrier) continue;
                ran = true;
                // Adversarial: often a whole stretch to the next barrier, sometimes a few instructions.
                long turn = policy switch
                {
                    SchedulingPolicy.Converge => 20_000,
                    SchedulingPolicy.Fair => 100,
                    _ => Random.Below(4) == 0 ? 1 + Random.Below(40) : 5_000,
                };
                long before = warp.Executed;
                WarpStatus status = warp.Run(turn);
                slice -= warp.Executed - before;
                if (status == WarpStatus.Done) Barriers.WarpEnded(warp);
            }
            if (allDone)
            {
                Barriers.BlockEnded();
                return true;
            }
            if (!ran && !Barriers.TryUnblock()) Barriers.Deadlocked();
        }
        return false;
    }

    public (int X, int Y, int Z) ThreadCoordinates(int thread)
    {
        Interop.Dim3 block = Launch.Configuration.Block;
        return (thread % block.X, thread / block.X % block.Y, thread / (block.X * block.Y));
    }

    public void Dispose()
    {
        foreach (Warp warp in Warps) warp.Dispose();
        Shadow?.Dispose();
        ScratchMemory.Return(Shared, SharedBytes + 64);
        NativeMemory.Free(SharedWritten);
    }
}
