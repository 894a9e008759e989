using System.Text;

namespace ZEngine.Models;

/// <summary>A step that cuts prepared text into pieces or rewrites them.</summary>
internal abstract class PreTokenizer
{
    public abstract void Apply(PieceBuffer buffer);
}

/// <summary>One step after another.</summary>
internal sealed class PreTokenizerSequence(PreTokenizer[] steps) : PreTokenizer
{
    public override void Apply(PieceBuffer buffer)
    {
        foreach (PreTokenizer step in steps) step.Apply(buffer);
    }
}

/// <summary>Cuts at the matches of a pattern.</summary>
internal sealed class Splitter(SplitPattern pattern, SplitBehavior behavior, bool isInverted) : PreTokenizer
{
    public override void Apply(PieceBuffer buffer) => buffer.Split(pattern, behavior, isInverted);
}

/// <summary>Writes each piece's UTF-8 bytes in the byte alphabet, after GPT-2's split where the file asks for it.</summary>
internal sealed class ByteLevel(bool addsPrefixSpace, bool useRegex) : PreTokenizer
{
    private static readonly Gpt2Split Gpt2 = new();

    public override void Apply(PieceBuffer buffer)
    {
        if (addsPrefixSpace) buffer.Rewrite(' ', static (_, text) => text[0] != ' ', Copy, growth: 1);
        if (useRegex) buffer.Split(Gpt2, SplitBehavior.Isolated, isInverted: false);
        buffer.Rewrite('\0', static (_, _) => false, WriteBytes, growth: 3);
    }

    public static int WriteBytes(ReadOnlySpan<char> from, Span<char> to)
    {
        int count = 0;
        Span<byte> utf8 = stackalloc byte[4];
        for (int i = 0; i < from.Length; i++)
        {
            char c = from[i];
            if (char.IsAscii(c))
            {
                to[count++] = ByteAlphabet.ToChar((byte)c);
                continue;
            }
            int bytes = Encoding.UTF8.GetBytes(from.Slice(i, char.IsHighSurrogate(c) ? 2 : 1), utf8);
            foreach (byte b in utf8[..bytes]) to[count++] = ByteAlphabet.ToChar(b);
            if (bytes == 4) i++;
        }
        return count;
    }

    private static int Copy(ReadOnlySpan<char> from, Span<char> to)
    {
        from.CopyTo(to);
        return from.Length;
    }
}

/// <summary>When a prefix goes before a piece.</summary>
internal enum PrependScheme
{
    Always,
    First,
    Never,
}

/// <summary>Writes spaces as a visible character and cuts before it.</summary>
internal sealed class Metaspace : PreTokenizer
{
    private readonly char _replacement;
    private readonly bool _splits;
    private readonly LiteralPattern _pattern;
    private readonly Func<Piece, ReadOnlySpan<char>, bool> _needsPrefix;
    private readonly PieceBuffer.Writer _write;

    public Metaspace(char replacement, PrependScheme scheme, bool splits)
    {
        _replacement = replacement;
        _splits = splits;
        _pattern = new(replacement.ToString());
        _needsPrefix = (piece, text) => scheme != PrependScheme.Never && text[0] != replacement && text[0] != ' '
            && (scheme == PrependScheme.Always || piece.IsAtStart);
        _write = (from, to) =>
        {
            from.Replace(to, ' ', replacement);
            return from.Length;
        };
    }

    public override void Apply(PieceBuffer buffer)
    {
        buffer.Rewrite(_replacement, _needsPrefix, _write, growth: 1);
        if (_splits) buffer.Split(_pattern, SplitBehavior.MergedWithNext, isInverted: false);
    }
}
