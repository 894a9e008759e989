namespace ZEngine.Models;

/// <summary>Compares strings as their UTF-8 bytes do, which is the order of code points.</summary>
/// <remarks>Ordinal comparison of UTF-16 puts U+10000 and above before U+E000; the reference implementations do not.</remarks>
internal sealed class Utf8Order : IComparer<string>
{
    public static readonly Utf8Order Instance = new();

    public int Compare(string? x, string? y)
    {
        if (x is null || y is null) return x is null ? y is null ? 0 : -1 : 1;
        int shared = Math.Min(x.Length, y.Length);
        for (int i = 0; i < shared; i++)
        {
            if (x[i] != y[i]) return Rank(x[i]).CompareTo(Rank(y[i]));
        }
        return x.Length.CompareTo(y.Length);
    }

    // Surrogates stand for code points above every other UTF-16 unit.
    private static int Rank(char c) => char.IsSurrogate(c) ? c + 0x10000 : c;
}
