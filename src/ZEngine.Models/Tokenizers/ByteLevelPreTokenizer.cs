using System.Text;

namespace ZEngine.Models;

/// <summary>Writes each piece's UTF-8 bytes in the byte alphabet, after GPT-2's split where the file asks for it.</summary>
internal sealed class ByteLevelPreTokenizer(bool addsPrefixSpace, bool useRegex) : PreTokenizer
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
