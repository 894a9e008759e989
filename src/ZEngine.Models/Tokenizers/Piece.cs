namespace ZEngine.Models;

/// <summary>A stretch of the buffer's text that becomes tokens on its own.</summary>
/// <param name="Start">First char.</param>
/// <param name="End">One past the last char.</param>
/// <param name="IsAtStart">Whether it begins where the user's text begins.</param>
internal readonly record struct Piece(int Start, int End, bool IsAtStart);
