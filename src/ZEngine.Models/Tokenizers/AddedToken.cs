namespace ZEngine.Models;

/// <summary>A token that is looked for in the text itself, before any other step.</summary>
internal sealed record AddedToken(int Id, string Content, bool IsSingleWord, bool StripsLeft, bool StripsRight, bool IsNormalized, bool IsSpecial);
