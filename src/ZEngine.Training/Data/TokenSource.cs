namespace ZEngine.Training;

/// <summary>A long run of tokens, read at any place.</summary>
public abstract class TokenSource : IDisposable
{
    /// <summary>Number of tokens.</summary>
    public abstract long Count { get; }

    /// <summary>All tokens are below this number.</summary>
    public abstract int Vocabulary { get; }

    /// <summary>A name for the contents: SHA-256 over the tokens as 32-bit little-endian numbers, in hexadecimal.</summary>
    public abstract string Fingerprint { get; }

    /// <summary>Copies tokens from a place on.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The range is not inside the source.</exception>
    public void Read(long start, Span<int> tokens)
    {
        if (start < 0 || start > Count - tokens.Length) throw new ArgumentOutOfRangeException(nameof(start), start, $"{tokens.Length} tokens from here on are not inside the source's {Count}");
        Copy(start, tokens);
    }

    /// <summary>Gives files and memory back.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Copies tokens of a range that was checked.</summary>
    protected abstract void Copy(long start, Span<int> tokens);

    /// <summary>Gives files and memory back.</summary>
    protected virtual void Dispose(bool disposing) { }
}
