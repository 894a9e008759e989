namespace ZEngine.Models;

/// <summary>The switches of a byte-pair model.</summary>
/// <param name="UnknownText">The unknown token's spelling, if there is one.</param>
/// <param name="FusesUnknown">Whether neighbouring unknown characters become one token.</param>
/// <param name="HasByteFallback">Whether unknown characters become byte tokens.</param>
/// <param name="IgnoresMerges">Whether a piece that is a token needs no merges.</param>
internal sealed record ModelSettings(string? UnknownText, bool FusesUnknown, bool HasByteFallback, bool IgnoresMerges);
