namespace ZEngine.Training;

/// <summary>Prompts and answers for supervised fine-tuning: one pair a row, of which the answer alone counts.</summary>
/// <remarks>
/// A row holds prompt and answer, padded on the right with token 0; the targets of prompt and padding are -100. Padding stands behind
/// everything that counts, so no causal model sees it. The order is shuffled anew every epoch and depends on seed and place alone.
/// </remarks>
public sealed class AnswerSequences : SequenceSource
{
    private readonly AnswerRows _rows;
    private readonly EpochOrder _order;

    /// <summary>Takes pairs in memory.</summary>
    /// <exception cref="InvalidDataException">There is none, or one has no answer, a token beyond the vocabulary, or does not fit; one line that says which.</exception>
    public AnswerSequences(IEnumerable<PromptAnswer> pairs, AnswerOptions options) : this(Named(pairs), options) { }

    private AnswerSequences(IEnumerable<(string Name, PromptAnswer Pair)> pairs, AnswerOptions options)
    {
        _rows = new AnswerRows("answers", options);
        foreach ((string name, PromptAnswer pair) in pairs) _rows.Add(name, pair.Prompt, pair.Answer);
        if (_rows.Count == 0) throw new InvalidDataException("AnswerSequences: there is no pair.");
        (Length, Vocabulary, _order, Fingerprint) = (options.Length, options.Vocabulary, new EpochOrder(_rows.Count, options.Seed), _rows.Fingerprint());
    }

    /// <inheritdoc/>
    public override int Length { get; }

    /// <inheritdoc/>
    public override long EpochLength => _rows.Count;

    /// <inheritdoc/>
    public override int Vocabulary { get; }

    /// <inheritdoc/>
    public override string Fingerprint { get; }

    /// <summary>Pairs whose answer was cut; see <see cref="OverlongRule.Cut"/>.</summary>
    public int CutCount => _rows.CutCount;

    /// <summary>Targets that count in one epoch.</summary>
    public long AnswerTokens => _rows.AnswerTokens;

    /// <summary>Reads a file of JSON lines, each an object with the strings <c>prompt</c> and <c>answer</c>; other fields are not read.</summary>
    /// <param name="path">UTF-8; empty lines are passed over.</param>
    /// <param name="tokenize">Turns a prompt or an answer into tokens.</param>
    /// <param name="options">How they become rows.</param>
    /// <exception cref="InvalidDataException">A line is not such an object, or its pair is not valid; one line that names file and line.</exception>
    public static AnswerSequences FromFile(string path, Func<string, int[]> tokenize, AnswerOptions options)
    {
        ArgumentNullException.ThrowIfNull(tokenize);
        return new AnswerSequences(JsonLines.Read(path, "prompt", "answer").Select(line => (line.Name, new PromptAnswer(tokenize(line.Values[0]), tokenize(line.Values[1])))), options);
    }

    /// <inheritdoc/>
    public override void Read(long place, Span<int> tokens, Span<int> targets) => _rows.Read(_order[place], tokens, targets);

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{EpochLength} pairs with {AnswerTokens} tokens of answers in rows of {Length}; {CutCount} answers cut");

    private static IEnumerable<(string, PromptAnswer)> Named(IEnumerable<PromptAnswer> pairs)
    {
        ArgumentNullException.ThrowIfNull(pairs);
        return pairs.Select((pair, i) => ($"Pair {i}", pair));
    }
}
