using System.Diagnostics;
using System.Globalization;
using System.Text.Json;

namespace ZEngine.Distributed;

/// <summary>The last collectives of a rank, for the moment when something went wrong.</summary>
/// <remarks>Thread-safe: the watchdog reads while a collective runs.</remarks>
public sealed class FlightRecorder
{
    private const int Kept = 2000;

    private readonly Lock _gate = new();
    private readonly Queue<Entry> _entries = new();
    private Entry? _current;

    /// <summary>The collective that runs now, and since when; null when none does.</summary>
    public (long Sequence, string Call, TimeSpan Age)? Current
    {
        get
        {
            lock (_gate) return _current is { } entry ? (entry.Sequence, entry.Text, Stopwatch.GetElapsedTime(entry.Begin)) : null;
        }
    }

    /// <summary>Writes the collectives as JSON lines, the oldest first; one that has not ended has no duration.</summary>
    public void Write(string path)
    {
        Entry[] entries;
        lock (_gate) entries = [.. _entries];
        using var writer = new StreamWriter(path);
        foreach (Entry entry in entries)
        {
            writer.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{{\"sequence\":{entry.Sequence},\"group\":{entry.Group},\"call\":\"{JsonEncodedText.Encode(entry.Text)}\",\"time\":\"{entry.Time:O}\",\"ms\":{(entry.Milliseconds is { } ms ? ms.ToString("F3", CultureInfo.InvariantCulture) : "null")}}}"));
        }
    }

    internal void Begin(long sequence, int group, Collective call)
    {
        lock (_gate)
        {
            _current = new Entry(sequence, group, call.ToString(), DateTime.UtcNow, Stopwatch.GetTimestamp());
            _entries.Enqueue(_current);
            if (_entries.Count > Kept) _entries.Dequeue();
        }
    }

    /// <summary>The collective that runs has ended well; one that has not stays current, for the report.</summary>
    internal void End()
    {
        lock (_gate)
        {
            if (_current is not { } entry) return;
            entry.Milliseconds = Stopwatch.GetElapsedTime(entry.Begin).TotalMilliseconds;
            _current = null;
        }
    }

    private sealed class Entry(long sequence, int group, string text, DateTime time, long begin)
    {
        public long Sequence { get; } = sequence;
        public int Group { get; } = group;
        public string Text { get; } = text;
        public DateTime Time { get; } = time;
        public long Begin { get; } = begin;
        public double? Milliseconds { get; set; }
    }
}
