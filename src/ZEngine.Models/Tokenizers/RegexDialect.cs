using System.Globalization;
using System.Text;

namespace ZEngine.Models;

/// <summary>Rewrites a pattern in the dialect of tokenizer files (Oniguruma, Ruby syntax) into .NET's, so that it matches the same text.
/// Where the dialects differ and no rewriting is known, it refuses.</summary>
internal sealed class RegexDialect
{
    // One character per general category, in the order of UnicodeCategory, rare enough that no pattern names it.
    private const string StandIns =
        "\uA640\uA641\u1F88\uA717\uA840\uA6F0\uA823\uA670\uA620\u2188\uA830\0\0\0\0\u2064\0\uE000\uFE4D\u2E3A\u2E22\u2E23\u2E20\u2E21\uA874\u2A00\uA838\uA700\uA828\uFFFF";
    private const char AlphabeticSymbol = '\u24B6';
    private const int MostLength = 4096;
    private const string Word = @"\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\u24B6-\u24E9";
    private static readonly HashSet<string> Categories =
        [.. "L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp C Cc Cf Cs Co Cn".Split(' ')];

    private static readonly string[] GroupHeads = ["?:", "?=", "?!", "?<=", "?<!", "?>"];

    private readonly string _pattern;
    private readonly StringBuilder _output = new();
    private readonly Stack<(int Start, bool IgnoresCase)> _groups = new();
    private bool _ignoresCase;
    private int _at;
    private int _atomStart = -1;                                // where in the output the last repeatable item begins
    private char _previous;                                     // the literal before, under ignored case

    private RegexDialect(string pattern) => _pattern = pattern;

    /// <summary>The .NET pattern.</summary>
    /// <exception cref="FormatException">Something in the pattern has no translation.</exception>
    public static string Translate(string pattern) => new RegexDialect(pattern).Translate();

    /// <summary>A character of the basic plane that every translated pattern treats as it treats one of this category elsewhere.</summary>
    public static char StandIn(Rune rune) => UnicodeText.IsWord(rune) && Rune.GetUnicodeCategory(rune) == UnicodeCategory.OtherSymbol
        ? AlphabeticSymbol : StandIns[(int)Rune.GetUnicodeCategory(rune)];

    private string Translate()
    {
        if (_pattern.Length > MostLength) throw new FormatException($"the regular expression is longer than {MostLength} characters");
        while (_at < _pattern.Length)
        {
            char c = _pattern[_at++];
            char previous = _previous;
            _previous = '\0';
            switch (c)
            {
                case '(': Open(); break;
                case ')': Close(); break;
                case '[': Atom(Class()); break;
                case '\\': Escape(); break;
                case '.': Atom(@"[^\n]"); break;
                case '|': Mark("|"); break;
                case '^': Mark(@"(?:\A|(?<=\n)(?!\z))"); break;
                case '$': Mark(@"(?=\n|\z)"); break;
                case '?' or '*' or '+': Repeat(c.ToString(), isLazyAllowed: true, isPossessiveAllowed: true); break;
                case '{': Interval(); break;
                case ']' or '}': throw Unsupported($"'{c}' without its opening bracket");
                default: Literal(c, previous); break;
            }
        }
        if (_groups.Count > 0) throw Unsupported("a group without its end");
        return _output.ToString();
    }

    private void Atom(string text)
    {
        _atomStart = _output.Length;
        _output.Append(text);
    }

    private void Mark(string text)
    {
        _output.Append(text);
        _atomStart = -1;
    }

    private void Open()
    {
        bool ignoresCase = _ignoresCase;
        string head = "(?:";
        if (Take("?i:")) ignoresCase = true;
        else if (Next == '?')
        {
            head = "(" + (GroupHeads.FirstOrDefault(Take) ?? throw Unsupported("this kind of group"));
        }
        _groups.Push((_output.Length, _ignoresCase));
        _ignoresCase = ignoresCase;
        Mark(ignoresCase && head == "(?:" ? "(?i:" : head);
    }

    private void Close()
    {
        if (!_groups.TryPop(out (int Start, bool IgnoresCase) group)) throw Unsupported("')' without its '('");
        _output.Append(')');
        _ignoresCase = group.IgnoresCase;
        _atomStart = group.Start;
    }

    private void Repeat(string quantifier, bool isLazyAllowed, bool isPossessiveAllowed)
    {
        if (_atomStart < 0) throw Unsupported($"'{quantifier}' here");
        _output.Append(quantifier);
        if (isLazyAllowed && Take("?")) _output.Append('?');
        else if (isPossessiveAllowed && Take("+"))
        {
            _output.Insert(_atomStart, "(?>");
            _output.Append(')');
        }
        _atomStart = -1;
    }

    private void Interval()
    {
        int end = _pattern.IndexOf('}', _at);
        string body = end < 0 ? "" : _pattern[_at..end];
        string[] bounds = body.Split(',');
        bool isInterval = bounds.Length <= 2 && bounds[0].Length > 0 && bounds.All(bound => bound.All(char.IsAsciiDigit));
        if (!isInterval) throw Unsupported("'{' that opens no repetition");
        _at = end + 1;
        // {n}? makes the item optional in Ruby and lazy in .NET; {n,m}+ repeats in Ruby and is an error in .NET.
        Repeat('{' + body + '}', isLazyAllowed: bounds.Length == 2, isPossessiveAllowed: false);
    }

    private void Literal(char c, char previous)
    {
        CheckLiteral(c, c);
        if (!_ignoresCase)
        {
            Atom(Unit(c));
            return;
        }
        char lower = AsciiLower(c);
        // Unicode folding lets one ligature match two letters, which .NET does not.
        if ($"{previous}{lower}" is "ss" or "st" or "ff" or "fi" or "fl") throw Unsupported($"'{previous}{lower}' under ignored case");
        Atom(lower switch { 's' => @"[s\u017F]", 'k' => @"[k\u212A]", _ => Unit(c) });
        _previous = lower;
    }

    private void Escape()
    {
        int start = _at;
        if (Class(out string members)) Atom($"[{members}]");
        else if (Take("W")) Atom($"[^{Word}]");
        else if (Take("A") || Take("z") || Take("Z")) Mark(_pattern[(start - 1).._at]);
        else Literal(EscapedChar(), '\0');
    }

    /// <summary>Reads the escapes that stand for a set of characters.</summary>
    private bool Class(out string members)
    {
        char c = Next;
        members = "";
        if (c is 'd' or 'D' or 's' or 'S') members = $@"\{c}";
        else if (c == 'w') members = Word;
        else if (c is 'p' or 'P')
        {
            int end = _pattern.IndexOf('}', _at);
            string name = end > _at + 2 && _pattern[_at + 1] == '{' ? _pattern[(_at + 2)..end] : "";
            if (!Categories.Contains(name)) throw Unsupported($"the property '{name}', which is no general category");
            if (_ignoresCase) throw Unsupported("a property under ignored case");
            members = $@"\{c}{{{name}}}";
            _at = end;
        }
        else return false;
        _at++;
        return true;
    }

    private string Class()
    {
        bool isNegated = Take("^");
        var members = new StringBuilder();
        bool hasS = false, hasK = false;
        if (Next == ']') throw Unsupported("']' first in a class");
        while (!Take("]"))
        {
            if (_at == _pattern.Length) throw Unsupported("a class without its end");
            if (Next == '[' || _pattern.AsSpan(_at).StartsWith("&&")) throw Unsupported("a class inside a class");
            if (Take("\\"))
            {
                if (Class(out string set))
                {
                    members.Append(set);
                    continue;
                }
                _at--;
            }
            char low = ClassChar(), high = low;
            if (Next == '-' && _at + 1 < _pattern.Length && _pattern[_at + 1] != ']')
            {
                _at++;
                high = ClassChar();
                if (high < low) throw Unsupported("a range that runs backwards");
            }
            CheckLiteral(low, high);
            for (char c = low; _ignoresCase && c <= high; c++)
            {
                hasS |= AsciiLower(c) == 's';
                hasK |= AsciiLower(c) == 'k';
            }
            members.Append(Unit(low)).Append('-').Append(Unit(high));
        }
        if (_ignoresCase && isNegated) throw Unsupported("a negated class under ignored case");
        if (hasS) members.Append(@"\u017F");
        if (hasK) members.Append(@"\u212A");
        return (isNegated ? "[^" : "[") + members + ']';
    }

    private char ClassChar()
    {
        if (_at == _pattern.Length) throw Unsupported("a class without its end");
        if (Take("\\")) return EscapedChar();
        if (Next == '[') throw Unsupported("a class inside a class");
        return _pattern[_at++];
    }

    private char EscapedChar()
    {
        char c = Next;
        _at++;
        switch (c)
        {
            case 't': return '\t';
            case 'n': return '\n';
            case 'r': return '\r';
            case 'f': return '\f';
            case 'v': return '\v';
            case 'a': return '\a';
            case 'e': return '\e';
            case 'x' or 'u':
                int digits = c == 'x' ? 2 : 4;
                if (_at + digits <= _pattern.Length
                    && ushort.TryParse(_pattern.AsSpan(_at, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ushort code))
                {
                    _at += digits;
                    return (char)code;
                }
                break;
            case ' ': return c;
            default:
                if (char.IsAscii(c) && char.IsPunctuation(c) || c is '$' or '+' or '<' or '=' or '>' or '^' or '`' or '|' or '~') return c;
                break;
        }
        throw Unsupported($@"the escape '\{c}'");
    }

    private void CheckLiteral(char low, char high)
    {
        if (low <= '\uDFFF' && high >= '\uD800') throw Unsupported("a character outside the basic plane");
        if (_ignoresCase && high > '\x7F') throw Unsupported("a character outside ASCII under ignored case");
        foreach (char standIn in StandIns)
            if (standIn != '\0' && low <= standIn && standIn <= high) throw Unsupported($"a literal or range that contains U+{(int)standIn:X4}");
    }

    private char Next => _at < _pattern.Length ? _pattern[_at] : '\0';

    private bool Take(string text)
    {
        if (!_pattern.AsSpan(_at).StartsWith(text)) return false;
        _at += text.Length;
        return true;
    }

    private static string Unit(char c) => $@"\u{(int)c:X4}";

    private static char AsciiLower(char c) => char.IsAsciiLetterUpper(c) ? (char)(c | 0x20) : c;

    private FormatException Unsupported(string what) => new($"the regular expression uses {what}, at {_at} of {_pattern}");
}
