using System.Text;

namespace ZEngine.Models;

/// <summary>The vocabulary and merges of a byte-pair encoding; turns one piece of prepared text into tokens.</summary>
internal sealed class BpeModel
{
    private readonly string?[] _texts;
    private readonly Dictionary<string, int> _tokens;
    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> _lookup;
    private readonly int[] _charTokens = new int[char.MaxValue + 1];
    private readonly int[] _byteTokens = new int[256];

    /// <param name="tokens">Ids by spelling, all distinct.</param>
    /// <param name="merges">The merges, over ids.</param>
    /// <param name="settings">The switches.</param>
    public BpeModel(Dictionary<string, int> tokens, PairTable merges, ModelSettings settings)
    {
        _tokens = tokens;
        _lookup = tokens.GetAlternateLookup<ReadOnlySpan<char>>();
        Merges = merges;
        Settings = settings;
        _texts = new string?[tokens.Count == 0 ? 0 : tokens.Values.Max() + 1];
        Array.Fill(_charTokens, -1);
        foreach ((string text, int token) in tokens)
        {
            _texts[token] = text;
            if (text.Length == 1) _charTokens[text[0]] = token;
        }
        for (int b = 0; b < 256; b++) _byteTokens[b] = tokens.GetValueOrDefault($"<0x{b:X2}>", -1);
    }

    public PairTable Merges { get; }

    public ModelSettings Settings { get; }

    public ReadOnlySpan<string?> Texts => _texts;

    public bool TryGet(ReadOnlySpan<char> text, out int token) => _lookup.TryGetValue(text, out token);

    public void Encode(ReadOnlySpan<char> piece, List<int> output, MergeQueue queue)
    {
        if (Settings.IgnoresMerges && TryGet(piece, out int whole))
        {
            output.Add(whole);
            return;
        }
        queue.Clear();
        int unknown = -1;                                       // an unknown token not yet added, so that more may fuse into it
        Span<byte> utf8 = stackalloc byte[4];
        for (int i = 0, length; i < piece.Length; i += length)
        {
            length = char.IsHighSurrogate(piece[i]) ? 2 : 1;
            int token = length == 1 ? _charTokens[piece[i]] : TryGet(piece.Slice(i, 2), out int found) ? found : -1;
            if (token >= 0)
            {
                if (unknown >= 0) queue.Add(unknown);
                unknown = -1;
                queue.Add(token);
                continue;
            }
            // The reference adds byte tokens without ending a run of unknowns, so that run's token follows them.
            if (Settings.HasByteFallback && AddBytes(utf8[..Encoding.UTF8.GetBytes(piece.Slice(i, length), utf8)], queue)) continue;
            if (unknown >= 0 && !Settings.FusesUnknown) queue.Add(unknown);
            unknown = UnknownToken(piece.Slice(i, length));
        }
        if (unknown >= 0) queue.Add(unknown);
        queue.MergeInto(output, Merges);
    }

    private bool AddBytes(ReadOnlySpan<byte> bytes, MergeQueue queue)
    {
        foreach (byte b in bytes)
            if (_byteTokens[b] < 0) return false;
        foreach (byte b in bytes) queue.Add(_byteTokens[b]);
        return true;
    }

    private int UnknownToken(ReadOnlySpan<char> character)
    {
        if (Settings.UnknownText is not null && _tokens.TryGetValue(Settings.UnknownText, out int token)) return token;
        int value = char.ConvertToUtf32(character.ToString(), 0);
        throw new InvalidOperationException(Settings.UnknownText is null
            ? $"The vocabulary has no token for U+{value:X4} and no unknown token to stand for it."
            : $"The vocabulary has no token for U+{value:X4}, and its unknown token '{Settings.UnknownText}' is not in it.");
    }
}
