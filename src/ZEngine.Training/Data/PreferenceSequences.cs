namespace ZEngine.Training;

/// <summary>Preferences for <see cref="DpoObjective"/>: the chosen answer of a pair at an even place, the rejected one behind it.</summary>
public sealed class PreferenceSequences : AnswerSource
{
    /// <summary>Takes pairs in memory.</summary>
    /// <exception cref="InvalidDataException">There is none, or one has an empty answer, a token beyond the vocabulary, or does not fit; one line that says which.</exception>
    public PreferenceSequences(IEnumerable<PreferencePair> pairs, AnswerOptions options) : this(Named(pairs), options) { }

    private PreferenceSequences(IEnumerable<(string Name, PreferencePair Pair)> pairs, AnswerOptions options)
        : base("preferences", pairs.Select(item => (item.Name, item.Pair.Prompt, (int[][])[item.Pair.Chosen, item.Pair.Rejected])), 2, options) { }

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
    public override string ToString() => FormattableString.Invariant($"{EpochLength / 2} preferences with {AnswerTokens} tokens of answers in rows of {Length}; {CutCount} answers cut");
}
