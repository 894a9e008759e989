namespace ZEngine.Training;

/// <summary>Batches of a sequence source, one after the other, for one rank of a world.</summary>
/// <remarks>
/// Batch n of the world holds the sequences at places n·size·B to (n + 1)·size·B - 1, and rank r takes B of them from r·B on: the
/// world sees the same sequences in the same order whatever its size, as long as size·B is the same.
/// </remarks>
public sealed class TokenStream : IDisposable
{
    private readonly TokenSource? _owned;
    private readonly int _rank, _size;
    private readonly int[] _tokens, _targets;

    /// <summary>Batches of a source that somebody else owns.</summary>
    /// <param name="sequences">The sequences in their order.</param>
    /// <param name="batch">Sequences of a batch on this rank.</param>
    /// <param name="rank">This rank.</param>
    /// <param name="size">Ranks in the world.</param>
    public TokenStream(SequenceSource sequences, int batch, int rank = 0, int size = 1) : this(sequences, batch, rank, size, null) { }

    private TokenStream(SequenceSource sequences, int batch, int rank, int size, TokenSource? owned)
    {
        ArgumentNullException.ThrowIfNull(sequences);
        ArgumentOutOfRangeException.ThrowIfLessThan(batch, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(size, 1);
        ArgumentOutOfRangeException.ThrowIfNegative(rank);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(rank, size);
        (Sequences, Batch, _rank, _size, _owned) = (sequences, batch, rank, size, owned);
        _tokens = new int[checked(batch * sequences.Length)];
        _targets = new int[_tokens.Length];
    }

    /// <summary>The sequences in their order.</summary>
    public SequenceSource Sequences { get; }

    /// <summary>Sequences of a batch on this rank, B.</summary>
    public int Batch { get; }

    /// <summary>Tokens of a sequence, L.</summary>
    public int Length => Sequences.Length;

    /// <summary>Sequences that the world has taken so far.</summary>
    public long Position { get; private set; }

    /// <summary>The targets of the last batch that count: all but those of -100.</summary>
    public long CountedTargets { get; private set; }

    /// <summary>Opens binary token files.</summary>
    /// <param name="path">A file (see <see cref="BinaryTokens"/>), or several by <c>*</c> and <c>?</c> in the file name, such as <c>data/train-*.bin</c>, read in the order of their names.</param>
    /// <param name="batch">Sequences of a batch on this rank.</param>
    /// <param name="length">Tokens of a sequence.</param>
    /// <param name="rank">This rank.</param>
    /// <param name="size">Ranks in the world.</param>
    /// <param name="seed">Chooses the order.</param>
    /// <param name="part">Which part of the tokens.</param>
    /// <param name="split">How the tokens are parted.</param>
    /// <exception cref="InvalidDataException">A file is damaged or something else; one line that says where.</exception>
    /// <exception cref="IOException">There is no such file, or it cannot be read.</exception>
    public static TokenStream Open(string path, int batch, int length, int rank = 0, int size = 1, ulong seed = 0, DataPart part = DataPart.All, DataSplit? split = null)
    {
        JoinedTokens tokens = OpenAll(FilesOf(path));
        try
        {
            return new TokenStream(new TokenWindows(tokens, length, seed, part, split), batch, rank, size, tokens);
        }
        catch
        {
            tokens.Dispose();
            throw;
        }
    }

    /// <summary>Goes to a place in the order; the next batch begins there.</summary>
    /// <param name="position">Sequences that the world has taken before, as <see cref="Position"/> said.</param>
    public void Seek(long position)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(position);
        Position = position;
    }

    /// <summary>The next batch.</summary>
    /// <returns>Tokens [B, L] and targets [B, L], Int32, owned by the innermost open scope.</returns>
    public (Tensor Tokens, Tensor Targets) Next(Device device)
    {
        ArgumentNullException.ThrowIfNull(device);
        long first = checked(Position + (long)_rank * Batch);
        for (int b = 0; b < Batch; b++)
            Sequences.Read(first + b, _tokens.AsSpan(b * Length, Length), _targets.AsSpan(b * Length, Length));
        CountedTargets = _targets.Length - _targets.AsSpan().Count(-100);
        Position = checked(Position + (long)_size * Batch);
        return (Tensor.From<int>(_tokens, [Batch, Length], device), Tensor.From<int>(_targets, [Batch, Length], device));
    }

    /// <summary>Gives the files back that <see cref="Open"/> opened.</summary>
    public void Dispose() => _owned?.Dispose();

    private static string[] FilesOf(string path)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        string name = Path.GetFileName(path);
        if (!name.AsSpan().ContainsAny('*', '?')) return [path];
        string folder = Path.GetDirectoryName(path) is { Length: > 0 } given ? given : ".";
        string[] files = Directory.Exists(folder) ? Directory.GetFiles(folder, name) : [];
        if (files.Length == 0) throw new FileNotFoundException($"{path}: no file has such a name.", path);
        Array.Sort(files, StringComparer.Ordinal);
        return files;
    }

    private static JoinedTokens OpenAll(string[] files)
    {
        var opened = new List<TokenSource>(files.Length);
        try
        {
            foreach (string file in files) opened.Add(BinaryTokens.Open(file));
            return new JoinedTokens(opened);
        }
        catch
        {
            foreach (TokenSource source in opened) source.Dispose();
            throw;
        }
    }
}
