using System.Security.Cryptography;
using System.Text;

namespace ZEngine.Training;

/// <summary>Several token sources one after the other, seen as one; owns them.</summary>
public sealed class JoinedTokens : TokenSource
{
    private readonly TokenSource[] _sources;
    private readonly long[] _starts;

    /// <summary>Joins sources and takes them over.</summary>
    /// <param name="sources">At least one, in the order in which they are read.</param>
    public JoinedTokens(IEnumerable<TokenSource> sources)
    {
        ArgumentNullException.ThrowIfNull(sources);
        _sources = [.. sources];
        if (_sources.Length == 0) throw new ArgumentException("JoinedTokens: there is no source.", nameof(sources));
        _starts = new long[_sources.Length];
        for (int i = 0; i < _sources.Length; i++)
        {
            _starts[i] = Count;
            Count = checked(Count + _sources[i].Count);
        }
        Vocabulary = _sources.Max(source => source.Vocabulary);
        string parts = string.Join('\n', _sources.Select(source => $"{source.Count} {source.Fingerprint}"));
        Fingerprint = _sources.Length == 1 ? _sources[0].Fingerprint : Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(parts)));
    }

    /// <inheritdoc/>
    public override long Count { get; }

    /// <inheritdoc/>
    public override int Vocabulary { get; }

    /// <summary>That of a single source, else SHA-256 over the counts and fingerprints of all.</summary>
    public override string Fingerprint { get; }

    /// <inheritdoc/>
    protected override void Copy(long start, Span<int> tokens)
    {
        int i = Array.BinarySearch(_starts, start);
        if (i < 0) i = ~i - 1;
        while (tokens.Length > 0)
        {
            long within = start - _starts[i];
            int count = (int)Math.Min(tokens.Length, _sources[i].Count - within);
            _sources[i++].Read(within, tokens[..count]);
            start += count;
            tokens = tokens[count..];
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
            foreach (TokenSource source in _sources) source.Dispose();
        base.Dispose(disposing);
    }
}
