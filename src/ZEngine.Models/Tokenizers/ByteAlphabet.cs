namespace ZEngine.Models;

/// <summary>The printable stand-ins for the 256 bytes in byte-level vocabularies: printable Latin-1 stands for itself, the other bytes,
/// in order, take U+0100 and on.</summary>
internal static class ByteAlphabet
{
    private static readonly char[] CharOfByte = MakeChars();
    private static readonly short[] ByteOfChar = MakeBytes();

    public static char ToChar(byte value) => CharOfByte[value];

    /// <summary>The byte that <paramref name="c"/> stands for, or -1.</summary>
    public static int ToByte(char c) => c < ByteOfChar.Length ? ByteOfChar[c] : -1;

    private static char[] MakeChars()
    {
        var chars = new char[256];
        char next = '\u0100';
        for (int b = 0; b < 256; b++)
        {
            bool isPrintable = b is >= '!' and <= '~' or >= 0xA1 and <= 0xAC or >= 0xAE and <= 0xFF;
            chars[b] = isPrintable ? (char)b : next++;
        }
        return chars;
    }

    private static short[] MakeBytes()
    {
        var bytes = new short[CharOfByte.Max() + 1];
        Array.Fill(bytes, (short)-1);
        for (int b = 0; b < 256; b++) bytes[CharOfByte[b]] = (short)b;
        return bytes;
    }
}
