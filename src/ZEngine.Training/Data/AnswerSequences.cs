namespace ZEngine.Training;

/// <summary>Prompts and answers for supervised fine-tuning: one pair a row.</summary>
public sealed class AnswerSequences : AnswerSource
{
    /// <summary>Takes pairs in memory.</summary>
    /// <exception cref="InvalidDataException">There is none, or one has no answer, a token beyond the vocabulary, or does not fit; one line that says which.</exception>
    public AnswerSequences(IEnumerable<PromptAnswer> pairs, AnswerOptions options) : this(Named(pairs), options) { }

    private AnswerSequences(IEnumerable<(string Name, PromptAnswer Pair)> pairs, AnswerOptions options)
        : base("answers", pairs.Select(item => (item.Name, item.Pair.Prompt, (int[][])[item.Pair.Answer])), 1, options) { }

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
    public override string ToString() => FormattableString.Invariant($"{EpochLength} pairs with {AnswerTokens} tokens of answers in rows of {Length}; {CutCount} answers cut");
}
