namespace ZEngine.Training;

/// <summary>Preferences for <see cref="DpoObjective"/>: the chosen answer of a pair at an even place, the rejected one behind it.</summary>
/// <remarks>Rows are made as those of <see cref="AnswerSequences"/>. The order of the pairs is shuffled anew every epoch.</remarks>
public sealed class PreferenceSequences : SequenceSource
{
    private readonly AnswerRows _rows;
    private readonly EpochOrder _order;

    /// <summary>Takes pairs in memory.</summary>
    /// <exception cref="InvalidDataException">There is none, or one has an empty answer, a token beyond the vocabulary, or does not fit; one line that says which.</exception>
    public PreferenceSequences(IEnumerable<PreferencePair> pairs, AnswerOptions options) : this(Named(pairs), options) { }

    private PreferenceSequences(IEnumerable<(string Name, PreferencePair Pair)> pairs, AnswerOptions options)
    {
        _rows = new AnswerRows("preferences", options);
        foreach ((string name, PreferencePair pair) in pairs)
        {
            _rows.Add(name, pair.Prompt, pair.Chosen);
            _rows.Add(name, pair.Prompt, pair.Rejected);
        }
        if (_rows.Count == 0) throw new InvalidDataException("PreferenceSequences: there is no pair.");
        (Length, Vocabulary, _order, Fingerprint) = (options.Length, options.Vocabulary, new EpochOrder(_rows.Count / 2, options.Seed), _rows.Fingerprint());
    }

    /// <inheritdoc/>
    public override int Length { get; }

    /// <summary>Two for every pair.</summary>
    public override long EpochLength => _rows.Count;

    /// <inheritdoc/>
    public override int Vocabulary { get; }

    /// <inheritdoc/>
    public override string Fingerprint { get; }

    /// <summary>Answers that were cut; see <see cref="OverlongRule.Cut"/>.</summary>
    public int CutCount => _rows.CutCount;

    /// <summary>Targets that count in one epoch.</summary>
    public long AnswerTokens => _rows.AnswerTokens;

    /// <summary>Reads a file of JSON lines, each an object with the strings <c>prompt</c>, <c>chosen</c> and <c>rejected</c>; other fields are not read.</summary>
    /// <param name="path">UTF-8; empty lines are passed over.</param>
    /// <param name="tokenize">Turns a prompt or an answer into tokens.</param>
    /// <param name="options">How they become rows.</param>
    /// <exception cref="InvalidDataException">A line is not such an object, or its pair is not valid; one line that names file and line.</exception>
    public static PreferenceSequences FromFile(string path, Func<string, int[]> tokenize, AnswerOptions options)
    {
        ArgumentNullException.ThrowIfNull(tokenize);
        return new PreferenceSequences(
            JsonLines.Read(path, "prompt", "chosen", "rejected").Select(line => (line.Name, new PreferencePair(tokenize(line.Values[0]), tokenize(line.Values[1]), tokenize(line.Values[2])))), options);
    }

    /// <inheritdoc/>
    public override void Read(long place, Span<int> tokens, Span<int> targets) => _rows.Read(2 * _order[place / 2] + place % 2, tokens, targets);

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{EpochLength / 2} preferences with {AnswerTokens} tokens of answers in rows of {Length}; {CutCount} answers cut");

    private static IEnumerable<(string, PreferencePair)> Named(IEnumerable<PreferencePair> pairs)
    {
        ArgumentNullException.ThrowIfNull(pairs);
        return pairs.Select((pair, i) => ($"Pair {i}", pair));
    }
}
