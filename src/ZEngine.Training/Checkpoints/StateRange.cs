using System.Globalization;

namespace ZEngine.Training;

/// <summary>How a file names a part of a tensor: <c>name[begin:end]</c>, in elements of the tensor's own flattening.</summary>
internal readonly record struct StateRange(string Name, long Start, long Count)
{
    public static string Suffix(long start, long count) => string.Create(CultureInfo.InvariantCulture, $"[{start}:{start + count}]");

    /// <summary>The part that an entry holds; a name without a range is the whole tensor, of <paramref name="count"/> elements.</summary>
    public static StateRange Parse(string name, long count)
    {
        int bracket = name.LastIndexOf('['), colon = name.LastIndexOf(':');
        if (bracket < 0 || colon < bracket || !name.EndsWith(']')
            || !long.TryParse(name.AsSpan(bracket + 1, colon - bracket - 1), NumberStyles.None, CultureInfo.InvariantCulture, out long start)
            || !long.TryParse(name.AsSpan(colon + 1, name.Length - colon - 2), NumberStyles.None, CultureInfo.InvariantCulture, out long end)) return new StateRange(name, 0, count);
        return new StateRange(name[..bracket], start, end - start);
    }
}
