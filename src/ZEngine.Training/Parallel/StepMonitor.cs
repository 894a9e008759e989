using System.Diagnostics;
using System.Globalization;

namespace ZEngine.Training;

/// <summary>What the outside can see of a rank while it trains: a heartbeat file, and who is slower than the others.</summary>
/// <remarks>
/// <c>logs/heartbeat-RANK.json</c> in the run folder has the last step and its time, for a monitor of one's own. Time is a rank's own work: reading
/// data, forward and backward, without the waiting for others.
/// </remarks>
internal sealed class StepMonitor(Communicator world, string runFolder, Action<string> noticed)
{
    /// <summary>Steps from one comparison of the ranks to the next.</summary>
    private const int Interval = 50;

    /// <summary>How many times the median a rank must take to be named.</summary>
    private const double Slow = 1.5;

    private static readonly TimeSpan LeastBetweenBeats = TimeSpan.FromSeconds(1);

    private readonly string _path = Path.Combine(runFolder, "logs", string.Create(CultureInfo.InvariantCulture, $"heartbeat-{world.Rank:D5}.json"));
    private TimeSpan _own;
    private long _lastBeat;
    private int _steps;
    private bool _hasFailed;

    /// <summary>A step has ended; all ranks call.</summary>
    /// <param name="step">Its number.</param>
    /// <param name="own">This rank's work in it.</param>
    public void Note(long step, TimeSpan own)
    {
        if (world.Size == 1) return;
        Beat(step);
        _own += own;
        if (++_steps < Interval) return;
        double[] seconds = world.Gather(_own.TotalSeconds / Interval);
        (_own, _steps) = (TimeSpan.Zero, 0);
        foreach (string notice in Stragglers(seconds)) noticed($"step {step}: {notice}");
    }

    /// <summary>Who takes more than one and a half times the median; the same on all ranks.</summary>
    internal static IEnumerable<string> Stragglers(IReadOnlyList<double> seconds)
    {
        double[] sorted = [.. seconds.Order()];
        double median = (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2;
        for (int rank = 0; rank < sorted.Length; rank++)
            if (seconds[rank] > Slow * median) yield return string.Create(CultureInfo.InvariantCulture, $"rank {rank} is slow: {1000 * seconds[rank]:F1} ms of work a step, the median of the ranks is {1000 * median:F1} ms.");
    }

    private void Beat(long step)
    {
        if (_hasFailed || _lastBeat != 0 && Stopwatch.GetElapsedTime(_lastBeat) < LeastBetweenBeats) return;
        _lastBeat = Stopwatch.GetTimestamp();
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(_path)!);
            string temporary = _path + ".tmp";
            File.WriteAllText(temporary, string.Create(CultureInfo.InvariantCulture, $"{{\"rank\":{world.Rank},\"step\":{step},\"time\":\"{DateTime.UtcNow:O}\",\"process\":{Environment.ProcessId}}}\n"));
            File.Move(temporary, _path, overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _hasFailed = true;                                 // a full disk is the checkpoints' to complain of
            noticed($"{_path}: the heartbeat could not be written ({e.Message.ReplaceLineEndings(" ")}); there will be none.");
        }
    }
}
