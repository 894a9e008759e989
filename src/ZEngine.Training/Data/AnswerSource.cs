namespace ZEngine.Training;

/// <summary>Rows of one prompt and one answer each, of which the answer alone counts: what supervised fine-tuning and preferences share.</summary>
/// <remarks>
/// A row holds prompt and answer, padded on the right with token 0; the targets of prompt and padding are -100. Padding stands behind
/// everything that counts, so no causal model sees it. The order is shuffled anew every epoch and depends on seed and place alone.
/// </remarks>
public abstract class AnswerSource : SequenceSource
{
    private readonly AnswerRows _rows;
    private readonly EpochOrder _order;
    private readonly int _together;

    /// <param name="owner">What the fingerprint begins with.</param>
    /// <param name="items">Every item's name in error messages, its prompt, and its answers: as many for every item.</param>
    /// <param name="together">Answers of an item; they keep their order.</param>
    /// <param name="options">How they become rows.</param>
    private protected AnswerSource(string owner, IEnumerable<(string Name, int[] Prompt, int[][] Answers)> items, int together, AnswerOptions options)
    {
        _rows = new AnswerRows(owner, options);
        foreach ((string name, int[] prompt, int[][] answers) in items)
        foreach (int[] answer in answers) _rows.Add(name, prompt, answer);
        if (_rows.Count == 0) throw new InvalidDataException($"{GetType().Name}: there is no pair.");
        (Length, Vocabulary, _together, _order, Fingerprint) = (options.Length, options.Vocabulary, together, new EpochOrder(_rows.Count / together, options.Seed), _rows.Fingerprint());
    }

    /// <inheritdoc/>
    public override int Length { get; }

    /// <summary>One for every answer.</summary>
    public override long EpochLength => _rows.Count;

    /// <inheritdoc/>
    public override int Vocabulary { get; }

    /// <inheritdoc/>
    public override string Fingerprint { get; }

    /// <summary>Answers that were cut; see <see cref="OverlongRule.Cut"/>.</summary>
    public int CutCount => _rows.CutCount;

    /// <summary>Targets that count in one epoch.</summary>
    public long AnswerTokens => _rows.AnswerTokens;

    /// <inheritdoc/>
    public override void Read(long place, Span<int> tokens, Span<int> targets) => _rows.Read(_together * _order[place / _together] + place % _together, tokens, targets);

    private protected static IEnumerable<(string, T)> Named<T>(IEnumerable<T> pairs)
    {
        ArgumentNullException.ThrowIfNull(pairs);
        return pairs.Select((pair, i) => ($"Pair {i}", pair));
    }
}
