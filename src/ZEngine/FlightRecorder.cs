using System.Diagnostics;
using System.Globalization;
using System.Text.Json;

namespace ZEngine;

/// <summary>The last collectives of a rank, for the moment when something went wrong.</summary>
/// <remarks>Thread-safe: the watchdog reads while a collective runs.</remarks>
public sealed class FlightRecorder
{
    private const int Kept = 2000;

    private readonly Lock _gate = new();
    private readonly Queue<Entry> _entries = new();
    private readonly LinkedList<Entry> _running = new();       // the oldest first

    /// <summary>The oldest collective that has not ended, and its age; null when all have.</summary>
    public (long Sequence, string Call, TimeSpan Age)? Current
    {
        get
        {
            lock (_gate) return _running.First?.Value is { } entry ? (entry.Sequence, entry.Text, Stopwatch.GetElapsedTime(entry.Begin)) : null;
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

    /// <returns>What to end the collective with.</returns>
    internal object Begin(long sequence, int group, Collective call)
    {
        var entry = new Entry(sequence, group, call.ToString(), DateTime.UtcNow, Stopwatch.GetTimestamp());
        lock (_gate)
        {
            _running.AddLast(entry.Place);
            _entries.Enqueue(entry);
            if (_entries.Count > Kept) _entries.Dequeue();
        }
        return entry;
    }

    /// <summary>A collective has ended well; one that has not stays current, for the report.</summary>
    internal void End(object begun)
    {
        var entry = (Entry)begun;
        lock (_gate)
        {
            entry.Milliseconds = Stopwatch.GetElapsedTime(entry.Begin).TotalMilliseconds;
            _running.Remove(entry.Place);
        }
    }

    private sealed class Entry
    {
        public Entry(long sequence, int group, string text, DateTime time, long begin)
        {
            (Sequence, Group, Text, Time, Begin) = (sequence, group, text, time, begin);
            Place = new LinkedListNode<Entry>(this);
        }

        public LinkedListNode<Entry> Place { get; }
        public long Sequence { get; }
        public int Group { get; }
        public string Text { get; }
        public DateTime Time { get; }
        public long Begin { get; }
        public double? Milliseconds { get; set; }
    }
}
