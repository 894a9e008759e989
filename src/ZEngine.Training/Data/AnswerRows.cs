using System.Buffers.Binary;
using System.Security.Cryptography;

namespace ZEngine.Training;

/// <summary>Rows of one prompt and one answer each, checked once: what several sources share.</summary>
internal sealed class AnswerRows
{
    private readonly List<(int[] Tokens, int Prompt)> _rows = [];
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private readonly AnswerOptions _options;
    private readonly string _owner;

    public AnswerRows(string owner, AnswerOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentOutOfRangeException.ThrowIfLessThan(options.Length, 1, nameof(options));
        ArgumentOutOfRangeException.ThrowIfLessThan(options.Vocabulary, 1, nameof(options));
        (_owner, _options) = (owner, options);
    }

    public int Count => _rows.Count;

    /// <summary>Answers that were cut.</summary>
    public int CutCount { get; private set; }

    /// <summary>Targets that count.</summary>
    public long AnswerTokens { get; private set; }

    /// <param name="name">What error messages call it.</param>
    /// <param name="prompt">Without the begin token.</param>
    /// <param name="answer">Without the end token.</param>
    public void Add(string name, int[] prompt, int[] answer)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        ArgumentNullException.ThrowIfNull(answer);
        int[] before = _options.Begin is { } begin ? [begin, .. prompt] : prompt;
        int[] tokens = _options.End is { } end ? [.. before, .. answer, end] : [.. before, .. answer];
        if (before.Length == 0) throw Invalid(name, "has an empty prompt, so that nothing predicts the first token of the answer; give a begin token (AnswerOptions.Begin)");
        if (tokens.Length == before.Length) throw Invalid(name, "has an empty answer");
        foreach (int token in tokens)
            if (token < 0 || token >= _options.Vocabulary) throw Invalid(name, $"has the token {token}, which is not from 0 to {_options.Vocabulary - 1}");
        if (tokens.Length > _options.Length + 1)
        {
            if (before.Length > _options.Length) throw Invalid(name, $"has a prompt of {before.Length} tokens, which leaves no room for an answer in rows of {_options.Length}");
            if (_options.Overlong == OverlongRule.Refuse) throw Invalid(name, $"has {tokens.Length} tokens, rows of {_options.Length} take {_options.Length + 1}; use longer rows, or let answers be cut (OverlongRule.Cut)");
            tokens = tokens[..(_options.Length + 1)];
            CutCount++;
        }
        AnswerTokens += tokens.Length - before.Length;
        _rows.Add((tokens, before.Length));
        Note(before.Length);
        Note(tokens.Length);
        foreach (int token in tokens) Note(token);
    }

    /// <summary>A name for all rows and their order; nothing can be added any more.</summary>
    public string Fingerprint()
    {
        using (_hash)
            return FormattableString.Invariant($"{_owner}({Convert.ToHexStringLower(_hash.GetHashAndReset())},length={_options.Length},seed={_options.Seed})");
    }

    /// <summary>The inputs and their followers; padding is token 0 and, like the prompt, has targets of -100.</summary>
    public void Read(long row, Span<int> tokens, Span<int> targets)
    {
        (int[] all, int prompt) = _rows[(int)row];
        tokens.Clear();
        targets.Fill(-100);
        all.AsSpan(0, all.Length - 1).CopyTo(tokens);
        all.AsSpan(prompt).CopyTo(targets[(prompt - 1)..]);
    }

    private static InvalidDataException Invalid(string name, string message) => new($"{name} {message}.");

    private void Note(int value)
    {
        Span<byte> bytes = stackalloc byte[sizeof(int)];
        BinaryPrimitives.WriteInt32LittleEndian(bytes, value);
        _hash.AppendData(bytes);
    }
}
