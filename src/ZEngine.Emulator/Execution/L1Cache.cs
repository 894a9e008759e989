namespace ZEngine.Emulator.Execution;

/// <summary>
/// The L1 cache of a multiprocessor, as far as counts of what comes from the L2 cache need it: sets of lines, of which the one that was longest not used goes. Blocks of a multiprocessor
/// use it one after the other. Stores write through and leave nothing.
/// </summary>
internal sealed class L1Cache
{
    private const int LineShift = 2, SectorsOfLine = 1 << LineShift, LineBytes = 128, Sets = 32;

    private readonly ulong[] _lines;
    private readonly long[] _used;
    private readonly byte[] _sectors;
    private readonly int _ways;
    private long _time;

    public L1Cache(int bytes)
    {
        _ways = Math.Max(1, bytes / (LineBytes * Sets));
        (_lines, _used, _sectors) = (new ulong[Sets * _ways], new long[Sets * _ways], new byte[Sets * _ways]);
    }

    /// <summary>Loads a sector of 32 bytes. 1 where it was not there, else 0.</summary>
    public int Read(ulong sector)
    {
        ulong line = sector >> LineShift;
        byte bit = (byte)(1 << (int)(sector % SectorsOfLine));
        int first = FirstWay(line), oldest = first;
        for (int k = first; k < first + _ways; k++)
        {
            if (_used[k] < _used[oldest]) oldest = k;
            if (_used[k] == 0 || _lines[k] != line) continue;
            _used[k] = ++_time;
            bool isThere = (_sectors[k] & bit) != 0;
            _sectors[k] |= bit;
            return isThere ? 0 : 1;
        }
        (_lines[oldest], _used[oldest], _sectors[oldest]) = (line, ++_time, bit);
        return 1;
    }

    /// <summary>A store to a sector: the next load of it is a miss.</summary>
    public void Drop(ulong sector)
    {
        ulong line = sector >> LineShift;
        int first = FirstWay(line);
        for (int k = first; k < first + _ways; k++)
            if (_used[k] != 0 && _lines[k] == line) _sectors[k] &= (byte)~(1 << (int)(sector % SectorsOfLine));
    }

    private int FirstWay(ulong line) => (int)((line ^ line >> 5 ^ line >> 10) % Sets) * _ways;
}
