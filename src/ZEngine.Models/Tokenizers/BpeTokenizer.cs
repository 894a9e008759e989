using System.Collections.Concurrent;

namespace ZEngine.Models;

/// <summary>A byte-pair encoding described by a Hugging Face <c>tokenizer.json</c>, byte-level or SentencePiece style.</summary>
/// <remarks>Where the reference drops a character for which the vocabulary has no token and no stand-in, this throws
/// <see cref="InvalidOperationException"/>: text does not vanish. A special token that is looked for in normalized text is skipped like others, where the reference (0.23) keeps it.</remarks>
public sealed class BpeTokenizer : Tokenizer
{
    private readonly BpeModel _model;
    private readonly AddedToken[] _added;
    private readonly Pipeline _steps;
    private readonly SpecialRoles _roles;
    private readonly Dictionary<string, int> _addedIds = new(StringComparer.Ordinal);
    private readonly Dictionary<int, (AddedToken Token, string Text)> _addedById = [];
    private readonly AddedTokens _inText;                       // looked for in the text as it is
    private readonly AddedTokens _inNormalized;                 // looked for after normalization
    private readonly ConcurrentBag<Workspace> _workspaces = [];

    internal BpeTokenizer(BpeModel model, AddedToken[] added, Pipeline steps, SpecialRoles roles, int vocabularySize)
    {
        _model = model;
        _added = added;
        _steps = steps;
        _roles = roles;
        VocabularySize = vocabularySize;
        (BosToken, EosToken, PadToken) = (roles.Bos, roles.Eos, roles.Pad);
        List<(string Text, AddedToken Token)> inText = [], inNormalized = [];
        foreach (AddedToken token in added.OrderBy(token => !token.IsSpecial))
        {
            string text = token.IsNormalized ? Normalized(token.Content) : token.Content;
            if (text.Length > 0) (token.IsNormalized ? inNormalized : inText).Add((text, token));
            else text = token.Content;                          // of which the normalizer leaves nothing: it is in no text
            _addedIds.Add(token.Content, token.Id);
            _addedById.Add(token.Id, (token, text));
        }
        (_inText, _inNormalized) = (new(inText), new(inNormalized));
    }

    /// <inheritdoc/>
    public override int VocabularySize { get; }

    /// <inheritdoc/>
    public override string TokenToText(int token)
    {
        // As it stands in normalized text, which is what the decoder undoes.
        if (_addedById.TryGetValue(token, out (AddedToken Token, string Text) added)) return added.Text;
        return (uint)token < (uint)_model.Texts.Length && _model.Texts[token] is { } text ? text : throw NoSuchToken(token);
    }

    /// <inheritdoc/>
    public override bool TryGetToken(string text, out int token)
    {
        ArgumentNullException.ThrowIfNull(text);
        if (_addedIds.TryGetValue(text, out token) || _model.TryGet(text, out token)) return true;
        token = -1;
        return false;
    }

    /// <inheritdoc/>
    public override bool IsSpecial(int token) => _addedById.TryGetValue(token, out (AddedToken Token, string Text) added) && added.Token.IsSpecial;

    /// <inheritdoc/>
    public override void Save(string path) => TokenizerWriter.Save(path,
        TokenizerWriter.Write(_model.Texts, _model.Merges.InRankOrder(), _added, _steps.Raw, _model.Settings), _roles.Config);

    private protected override void AppendTokens(ReadOnlySpan<char> text, List<int> tokens, bool addSpecialTokens)
    {
        Workspace workspace = _workspaces.TryTake(out Workspace? free) ? free : new();
        try
        {
            if (addSpecialTokens) tokens.AddRange(_steps.Prefix);
            int done = 0, from = 0;
            while (_inText.TryFind(text, done, ref from, out int start, out int end, out AddedToken token))
            {
                AppendSegment(text[done..start], done == 0, tokens, workspace);
                tokens.Add(token.Id);
                done = Math.Max(done, end);
            }
            AppendSegment(text[done..], done == 0, tokens, workspace);
            if (addSpecialTokens) tokens.AddRange(_steps.Suffix);
        }
        finally
        {
            _workspaces.Add(workspace);
        }
    }

    private void AppendSegment(ReadOnlySpan<char> text, bool isAtStart, List<int> tokens, Workspace workspace)
    {
        if (text.IsEmpty) return;
        if (_steps.Normalizer is not null) text = _steps.Normalizer.Apply(text.ToString(), ref isAtStart);
        int done = 0, from = 0;
        while (_inNormalized.TryFind(text, done, ref from, out int start, out int end, out AddedToken token))
        {
            AppendPieces(text[done..start], isAtStart && done == 0, tokens, workspace);
            tokens.Add(token.Id);
            done = Math.Max(done, end);
        }
        AppendPieces(text[done..], isAtStart && done == 0, tokens, workspace);
    }

    private void AppendPieces(ReadOnlySpan<char> text, bool isAtStart, List<int> tokens, Workspace workspace)
    {
        PieceBuffer buffer = workspace.Buffer;
        buffer.Set(text, isAtStart);
        _steps.PreTokenizer?.Apply(buffer);
        foreach (Piece piece in buffer.Pieces)
        {
            ReadOnlySpan<char> word = buffer[piece];
            if (workspace.Words.TryGet(word, out ReadOnlySpan<int> known))
            {
                tokens.AddRange(known);
                continue;
            }
            workspace.Tokens.Clear();
            _model.Encode(word, workspace.Tokens, workspace.Queue);
            ReadOnlySpan<int> fresh = System.Runtime.InteropServices.CollectionsMarshal.AsSpan(workspace.Tokens);
            workspace.Words.Add(word, fresh);
            tokens.AddRange(fresh);
        }
    }

    /// <summary>The pieces of a text without added tokens, as the model would receive them.</summary>
    internal string[] Pieces(string text)
    {
        var buffer = new PieceBuffer();
        bool isAtStart = true;
        buffer.Set(_steps.Normalizer?.Apply(text, ref isAtStart) ?? text, isAtStart);
        _steps.PreTokenizer?.Apply(buffer);
        return [.. buffer.Pieces.Select(piece => buffer[piece].ToString())];
    }

    private string Normalized(string text)
    {
        bool isAtStart = true;
        return _steps.Normalizer?.Apply(text, ref isAtStart) ?? text;
    }

    internal override DecoderStage StartDecoder(DecoderStage output) => _steps.Decoder(output);

    /// <summary>What one encoding call writes to; kept for the next, so that the word cache lives on.</summary>
    private sealed class Workspace
    {
        public PieceBuffer Buffer { get; } = new();

        public WordCache Words { get; } = new();

        public MergeQueue Queue { get; } = new();

        public List<int> Tokens { get; } = [];
    }
}
