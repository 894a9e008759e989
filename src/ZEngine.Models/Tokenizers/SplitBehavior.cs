namespace ZEngine.Models;

/// <summary>What becomes of the matches when a piece is split.</summary>
internal enum SplitBehavior
{
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}
