using System.Runtime.Intrinsics;
using ZEngine.Emulator.Execution;

namespace ZEngine.Emulator.Checks;

/// <summary>
/// Who knows of whose past: a vector clock per thread of a block. Threads that met at a barrier share one array; each has besides its own
/// clock, which ticks when others may have learnt of it.
/// </summary>
internal sealed class BlockClocks(int threads)
{
    private readonly int[] _own = new int[threads];
    private readonly int[][] _known = new int[threads][];
    private readonly int[]?[] _fenced = new int[]?[threads];
    private readonly Dictionary<ulong, int[]> _published = [];

    public void Reset()
    {
        Array.Fill(_own, 1);
        Array.Fill(_known, new int[threads]);
        Array.Clear(_fenced);
        _published.Clear();
    }

    public int Clock(int thread) => _own[thread];

    /// <summary>Whether <paramref name="thread"/> knows of what <paramref name="other"/> did at a clock.</summary>
    public bool Knows(int thread, int other, int clock) => thread == other || _known[thread][other] >= clock;

    /// <summary>Warps meet at a barrier: those that wait learn what all of them did.</summary>
    public void Meet(List<Warp> participants, List<Warp> waiting)
    {
        var joined = new int[threads];
        foreach (Warp warp in participants) Learn(joined, warp.Index, uint.MaxValue);
        foreach (Warp warp in participants) Tick(joined, warp.Index, uint.MaxValue);
        foreach (Warp warp in waiting) Array.Fill(_known, joined, warp.Index * 32, 32);
        _last = null;
    }

    /// <summary>Lanes of a warp meet.</summary>
    public void MeetLanes(int warp, uint mask)
    {
        var joined = new int[threads];
        Learn(joined, warp, mask);
        Tick(joined, warp, mask);
        for (int lane = 0; lane < 32; lane++) if ((mask >> lane & 1) != 0) _known[warp * 32 + lane] = joined;
        _last = null;
    }

    private int[]? _last;

    // Takes over what lanes know. Most share one array.
    private void Learn(int[] joined, int warp, uint mask)
    {
        for (int lane = 0; lane < 32; lane++)
        {
            if ((mask >> lane & 1) == 0) continue;
            int[] known = _known[warp * 32 + lane];
            if (ReferenceEquals(known, _last)) continue;
            Maximum(joined, known);
            _last = known;
        }
    }

    // Takes over the lanes' own past, and lets their clocks tick.
    private void Tick(int[] joined, int warp, uint mask)
    {
        for (int lane = 0; lane < 32; lane++)
        {
            int thread = warp * 32 + lane;
            if ((mask >> lane & 1) != 0) joined[thread] = Math.Max(joined[thread], _own[thread]++);
        }
    }

    private static void Maximum(int[] into, int[] from)
    {
        int k = 0;
        for (; k + 8 <= into.Length; k += 8) Vector256.Max(Vector256.LoadUnsafe(ref into[k]), Vector256.LoadUnsafe(ref from[k])).StoreUnsafe(ref into[k]);
        for (; k < into.Length; k++) into[k] = Math.Max(into[k], from[k]);
    }

    /// <summary>A fence: what the thread did so far may be published by a later flag.</summary>
    public void Fence(int thread)
    {
        int[] view = (int[])_known[thread].Clone();
        view[thread] = _own[thread]++;
        _fenced[thread] = view;
    }

    /// <summary>A strong store or atomic: publishes what the thread had fenced; a release publishes everything.</summary>
    public void Publish(int thread, ulong address, bool isRelease)
    {
        if (isRelease) Fence(thread);
        if (_fenced[thread] is not { } view) return;
        if (_published.TryGetValue(address, out int[]? before))
        {
            view = (int[])view.Clone();
            Maximum(view, before);
        }
        _published[address] = view;
    }

    /// <summary>A strong load or atomic: learns what was published at the address.</summary>
    public void Acquire(int thread, ulong address)
    {
        if (_published.Count == 0 || !_published.TryGetValue(address, out int[]? view)) return;
        var known = (int[])_known[thread].Clone();
        Maximum(known, view);
        _known[thread] = known;
    }
}
