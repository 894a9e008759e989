using System.Globalization;
using System.Numerics;
using System.Text;

namespace ZEngine.Emulator.Execution;

/// <summary>printf of a kernel: C's conversions over the buffer in which the compiler lays out the arguments.</summary>
internal static unsafe class DevicePrintf
{
    private const int LongestText = 4096;

    /// <summary>The call of vprintf. Immediate and Target are where in local memory the arguments of the call and its result lie; Size the second argument.</summary>
    public static void Run(Warp w, Instruction* i, uint mask)
    {
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            ulong Local(long offset) => Read(w, i, lane, AddressWindows.Local + (ulong)offset, 8);
            ulong arguments = Local(i->Size);
            int count = 0;
            ulong Next(int bytes)
            {
                arguments = (arguments + (ulong)bytes - 1) & ~((ulong)bytes - 1);
                ulong value = Read(w, i, lane, arguments, bytes);
                arguments += (ulong)bytes;
                count++;
                return value;
            }
            w.Launch.Print(Format(TextAt(w, i, lane, Local(i->Immediate)), Next, address => TextAt(w, i, lane, address)));
            if (i->Target >= 0) OtherMemory.WriteLocal(w, lane, (uint)i->Target, (uint)count);
        }
    }

    private static ulong Read(Warp w, Instruction* i, int lane, ulong address, int bytes)
    {
        ulong value = 0;
        for (int k = 0; k < bytes; k++) value |= (ulong)OtherMemory.GenericByte(w, i, lane, address + (ulong)k) << (8 * k);
        return value;
    }

    private static string TextAt(Warp w, Instruction* i, int lane, ulong address)
    {
        var bytes = new List<byte>();
        for (byte b; bytes.Count < LongestText && (b = OtherMemory.GenericByte(w, i, lane, address + (ulong)bytes.Count)) != 0;) bytes.Add(b);
        return Encoding.UTF8.GetString([.. bytes]);
    }

    /// <summary>Fills in a format. Arguments come with the sizes that C's promotions give them.</summary>
    public static string Format(string format, Func<int, ulong> next, Func<ulong, string> text)
    {
        var result = new StringBuilder();
        for (int at = 0; at < format.Length; at++)
        {
            if (format[at] != '%')
            {
                result.Append(format[at]);
                continue;
            }
            int start = ++at;
            while (at < format.Length && "-+ #0".Contains(format[at])) at++;
            string flags = format[start..at];
            int width = Number(format, ref at, next) ?? 0, precision = -1;
            if (at < format.Length && format[at] == '.')
            {
                at++;
                precision = Number(format, ref at, next) ?? 0;
            }
            int longs = 0, halves = 0;
            for (; at < format.Length && "hlLjzt".Contains(format[at]); at++)
            {
                if (format[at] == 'h') halves++;
                else longs++;
            }
            if (at >= format.Length) return result.Append(format, start - 1, format.Length - start + 1).ToString();
            bool isLeft = flags.Contains('-') || width < 0;
            string body = Convert(format[at], flags, precision, longs, halves, next, text);
            bool fillsZeros = flags.Contains('0') && !isLeft && (precision < 0 || "fFeEgG".Contains(format[at])) && !"cs%".Contains(format[at]);
            result.Append(Padded(body, Math.Abs(width), isLeft, fillsZeros));
        }
        return result.ToString();
    }

    private static int? Number(string format, ref int at, Func<int, ulong> next)
    {
        if (at < format.Length && format[at] == '*')
        {
            at++;
            return (int)next(4);
        }
        int start = at;
        while (at < format.Length && char.IsAsciiDigit(format[at])) at++;
        return at == start ? null : int.Parse(format.AsSpan(start, at - start), CultureInfo.InvariantCulture);
    }

    private static string Padded(string body, int width, bool isLeft, bool fillsZeros)
    {
        if (isLeft) return body.PadRight(width);
        if (!fillsZeros || body.Length >= width) return body.PadLeft(width);
        int sign = body.Length > 0 && "+- ".Contains(body[0]) ? 1 : 0;
        if (body.AsSpan(sign).StartsWith("0x", StringComparison.OrdinalIgnoreCase)) sign += 2;
        return body[..sign] + new string('0', width - body.Length) + body[sign..];
    }

    private static string Convert(char conversion, string flags, int precision, int longs, int halves, Func<int, ulong> next, Func<ulong, string> text)
    {
        string Signed(string digits, bool isNegative) => (isNegative ? "-" : flags.Contains('+') ? "+" : flags.Contains(' ') ? " " : "") + digits;
        string Digits(string digits) => digits.PadLeft(Math.Max(precision, 0), '0');
        switch (conversion)
        {
            case '%': return "%";
            case 'c': return ((char)(byte)next(4)).ToString();
            case 's':
                string value = text(next(8));
                return precision >= 0 && precision < value.Length ? value[..precision] : value;
            case 'p': return next(8) is var pointer && pointer == 0 ? "(nil)" : $"0x{pointer:x}";
            case 'd' or 'i':
                long signed = longs > 0 ? (long)next(8) : (int)next(4);
                signed = halves switch { 1 => (short)signed, > 1 => (sbyte)signed, _ => signed };
                return Signed(Digits(((Int128)signed < 0 ? -(Int128)signed : signed).ToString(CultureInfo.InvariantCulture)), signed < 0);
            case 'u' or 'x' or 'X' or 'o':
                ulong bits = longs > 0 ? next(8) : next(4);
                bits = halves switch { 1 => (ushort)bits, > 1 => (byte)bits, _ => bits };
                string digits = conversion switch { 'u' => bits.ToString(CultureInfo.InvariantCulture), 'x' => bits.ToString("x", CultureInfo.InvariantCulture), 'X' => bits.ToString("X", CultureInfo.InvariantCulture), _ => Octal(bits) };
                string prefix = !flags.Contains('#') || bits == 0 ? "" : conversion switch { 'x' => "0x", 'X' => "0X", 'o' => "0", _ => "" };
                return prefix + Digits(digits);
            case 'f' or 'F' or 'e' or 'E' or 'g' or 'G':
                double real = BitConverter.UInt64BitsToDouble(next(8));
                return Signed(Real(Math.Abs(real), conversion, precision < 0 ? 6 : precision, flags.Contains('#')), double.IsNegative(real));
            default: return "%" + conversion;
        }
    }

    private static string Octal(ulong bits)
    {
        string digits = "";
        do digits = (char)('0' + (bits & 7)) + digits;
        while ((bits >>= 3) != 0);
        return digits;
    }

    private static string Real(double value, char conversion, int precision, bool keepsZeros)
    {
        bool isUpper = char.IsUpper(conversion);
        string text;
        if (!double.IsFinite(value)) text = double.IsNaN(value) ? "nan" : "inf";
        else if (conversion is 'f' or 'F') text = value.ToString("F" + precision, CultureInfo.InvariantCulture);
        else if (conversion is 'e' or 'E') text = Scientific(value, precision);
        else
        {
            // C: with exponent x of the scientific form, fixed when precision > x >= -4; zeros at the end go.
            int significant = Math.Max(1, precision), exponent = int.Parse(Scientific(value, significant - 1).Split('e')[1], CultureInfo.InvariantCulture);
            bool isFixed = significant > exponent && exponent >= -4;
            string full = isFixed ? value.ToString("F" + (significant - 1 - exponent), CultureInfo.InvariantCulture) : Scientific(value, significant - 1);
            string[] parts = full.Split('e');
            if (!keepsZeros && parts[0].Contains('.')) parts[0] = parts[0].TrimEnd('0').TrimEnd('.');
            text = string.Join('e', parts);
        }
        return isUpper ? text.ToUpperInvariant() : text;
    }

    private static string Scientific(double value, int precision) => value.ToString("0." + new string('0', precision) + "e+00", CultureInfo.InvariantCulture).Replace(".e", "e", StringComparison.Ordinal);
}
