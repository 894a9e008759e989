// One exchange between ranks as data: what a communicator is asked for, checks, numbers and records.
namespace ZEngine;

/// <summary>How the contributions of several ranks become one.</summary>
public enum ReduceOperation
{
    /// <summary>The sum.</summary>
    Sum,
    /// <summary>The largest; NaN where one of them is NaN.</summary>
    Max,
    /// <summary>The smallest; NaN where one of them is NaN.</summary>
    Min,
}

/// <summary>What ranks do together.</summary>
public enum CollectiveKind
{
    /// <summary>Every rank gets the reduction of all.</summary>
    AllReduce,
    /// <summary>Every rank gets its part of the reduction of all.</summary>
    ReduceScatter,
    /// <summary>Every rank gets the parts of all.</summary>
    AllGather,
    /// <summary>Every rank gets a part from every other.</summary>
    AllToAll,
    /// <summary>Every rank gets what the root has.</summary>
    Broadcast,
    /// <summary>One rank gives to one other.</summary>
    Send,
    /// <summary>One rank takes from one other.</summary>
    Receive,
    /// <summary>Nobody goes on before all have come.</summary>
    Barrier,
}

/// <summary>One call of a communicator, checked.</summary>
/// <param name="Kind">What is done.</param>
/// <param name="Source">What this rank gives; contiguous.</param>
/// <param name="Destination">Where the result goes; contiguous, may be <paramref name="Source"/> itself.</param>
/// <param name="Operation">How contributions are reduced, where they are.</param>
/// <param name="SourceCounts">Elements of <paramref name="Source"/> for each rank, where they are dealt out.</param>
/// <param name="DestinationCounts">Elements of <paramref name="Destination"/> from each rank, where they come from several.</param>
/// <param name="Peer">The root, or the other rank of a pair; -1 for none.</param>
public sealed record Collective(
    CollectiveKind Kind, Tensor? Source = null, Tensor? Destination = null, ReduceOperation Operation = ReduceOperation.Sum,
    IReadOnlyList<long>? SourceCounts = null, IReadOnlyList<long>? DestinationCounts = null, int Peer = -1)
{
    /// <summary>The element type, if anything is moved.</summary>
    public DType? DType => (Source ?? Destination)?.DType;

    /// <summary>Elements of the larger side.</summary>
    public long Count => Math.Max(Source?.Count ?? 0, Destination?.Count ?? 0);

    /// <summary>For example <c>AllReduce of 1024 Float32</c>.</summary>
    public override string ToString() => DType is { } dtype ? $"{Kind} of {Count} {dtype}{(Peer >= 0 ? $", peer {Peer}" : "")}" : $"{Kind}";
}

/// <summary>A collective that was begun and runs beside its caller.</summary>
public abstract class CollectiveWork
{
    /// <summary>Waits until the result is there; rethrows what went wrong.</summary>
    public abstract void Wait();
}

/// <summary>Ranks could not exchange data: one is gone, stuck, out of step, or ended the job. The world cannot be used any more.</summary>
public sealed class CommunicatorException : IOException
{
    /// <summary>An error with a message.</summary>
    public CommunicatorException(string message) : base(message) { }

    /// <summary>An error with a message and its cause.</summary>
    public CommunicatorException(string message, Exception? inner) : base(message, inner) { }

    /// <summary>An error without a message.</summary>
    public CommunicatorException() { }
}
