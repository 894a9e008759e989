using System.Globalization;
using System.Text.RegularExpressions;

namespace ZEngine.Emulator.Ptx;

/// <summary>Reads a PTX module: directives, variables, functions. Instructions are read by <see cref="PtxBodyParser"/>.</summary>
internal sealed partial class PtxParser
{
    private readonly List<Token> _tokens;
    private readonly PtxModule _module;
    private int _next;

    private PtxParser(string text, string name)
    {
        _tokens = PtxLexer.Tokens(text);
        _module = new PtxModule { Name = name };
    }

    public PtxModule Module => _module;
    public Token Peek => _tokens[_next];
    public Token PeekSecond => _tokens[Math.Min(_next + 1, _tokens.Count - 1)];

    public static PtxModule Parse(string text, string name)
    {
        var parser = new PtxParser(text, name);
        parser.ReadDebugStrings();
        parser.ReadFiles();
        parser.ReadModule();
        return parser._module;
    }

    public Token Take() => _tokens[_next++];

    public bool TryTake(char c)
    {
        if (!Peek.Is(c)) return false;
        _next++;
        return true;
    }

    public void Expect(char c)
    {
        Token token = Take();
        if (!token.Is(c)) throw Syntax(token, $"expected '{c}'");
    }

    public PtxUnsupportedException Syntax(Token token, string reason) =>
        new(token.Text.Length == 0 ? "end of file" : token.Text, reason, $"{_module.Name}, PTX line {token.Line}");

    public int TakeInt()
    {
        bool negative = TryTake('-');
        Token token = Take();
        if (token.Kind != TokenKind.Number) throw Syntax(token, "expected a number");
        int value = (int)ParseInteger(token.Text);
        return negative ? -value : value;
    }

    public static ulong ParseInteger(string text)
    {
        string digits = text.TrimEnd('U', 'u');
        if (digits.StartsWith("0x", StringComparison.OrdinalIgnoreCase)) return ulong.Parse(digits.AsSpan(2), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
        if (digits.StartsWith("0b", StringComparison.OrdinalIgnoreCase)) return ulong.Parse(digits.AsSpan(2), NumberStyles.BinaryNumber, CultureInfo.InvariantCulture);
        return digits.Length > 1 && digits[0] == '0' ? Convert.ToUInt64(digits, 8) : ulong.Parse(digits, CultureInfo.InvariantCulture);
    }

    private void ReadModule()
    {
        while (Peek.Kind != TokenKind.End)
        {
            Token token = Take();
            switch (token.Text)
            {
                case ".version": _module.Version = Take().Text; break;
                case ".target":
                    _module.Target = Take().Text;
                    while (TryTake(',')) Take();
                    break;
                case ".address_size":
                    if (TakeInt() != 64) throw Syntax(token, "only 64-bit addresses");
                    break;
                case ".file": SkipFile(); break;
                case ".section": SkipBraces(); break;
                case ".visible" or ".weak" or ".common": break;
                case ".extern": ReadExtern(); break;
                case ".entry" or ".func": ReadFunction(token, isExtern: false); break;
                case ".global" or ".const" or ".shared":
                    ReadVariable(token, _module.Globals, isExtern: false);
                    break;
                case ".pragma":
                    while (!Take().Is(';')) { }
                    break;
                case ";": break;
                default: throw Syntax(token, "directive not supported at module level");
            }
        }
    }

    private void ReadExtern()
    {
        Token token = Take();
        if (token.Text == ".func") ReadFunction(token, isExtern: true);
        else ReadVariable(token, _module.Globals, isExtern: true);
    }

    // ---- Functions -----------------------------------------------------------------------------------------------------------------

    private void ReadFunction(Token start, bool isExtern)
    {
        var results = new List<PtxVariable>();
        if (start.Text == ".func" && TryTake('(')) ReadParameters(results);
        string name = Take().Text;
        var function = new PtxFunction { Name = name, IsEntry = start.Text == ".entry", Line = start.Line };
        function.Results.AddRange(results);
        if (TryTake('(')) ReadParameters(function.Parameters);
        while (Peek.Kind == TokenKind.Directive) ReadPerformanceDirective(function);
        if (TryTake(';'))
        {
            _module.Functions.TryAdd(name, function);
            return;
        }
        if (isExtern) throw Syntax(Peek, "an extern function has no body");
        Expect('{');
        function.HasBody = true;
        new PtxBodyParser(this, function).Read();
        _module.Functions[name] = function;
    }

    private void ReadParameters(List<PtxVariable> into)
    {
        while (!TryTake(')'))
        {
            Token token = Take();
            if (token.Text != ".param") throw Syntax(token, "only .param parameters");
            into.Add(ReadDeclarator(Space.Param, token));
            TryTake(',');
        }
        ulong offset = 0;
        foreach (PtxVariable parameter in into)
        {
            offset = (offset + (ulong)parameter.Align - 1) / (ulong)parameter.Align * (ulong)parameter.Align;
            parameter.Address = offset;
            offset += (ulong)parameter.Bytes;
        }
    }

    private void ReadPerformanceDirective(PtxFunction function)
    {
        Token token = Take();
        switch (token.Text)
        {
            case ".maxntid": function.MaxThreads = ReadThree(); break;
            case ".reqntid": function.RequiredThreads = ReadThree(); break;
            case ".reqnctapercluster": function.RequiredCluster = ReadThree(); break;
            case ".minnctapersm" or ".maxnreg" or ".maxclusterrank": TakeInt(); break;
            case ".explicitcluster" or ".noreturn": break;
            case ".pragma":
                while (!Take().Is(';')) { }
                break;
            default: throw Syntax(token, "directive not supported on a function");
        }
    }

    private (int, int, int) ReadThree()
    {
        int x = TakeInt(), y = 1, z = 1;
        if (TryTake(',')) y = TakeInt();
        if (TryTake(',')) z = TakeInt();
        return (x, y, z);
    }

    // ---- Variables -----------------------------------------------------------------------------------------------------------------

    public PtxVariable ReadVariable(Token space, Scope scope, bool isExtern)
    {
        Space kind = space.Text switch
        {
            ".global" => Space.Global, ".const" => Space.Const, ".shared" => Space.Shared, ".local" => Space.Local, ".param" => Space.Param,
            _ => throw Syntax(space, "state space not supported"),
        };
        PtxVariable variable = ReadDeclarator(kind, space);
        variable.IsExtern = isExtern;
        if (isExtern && kind != Space.Shared) throw Syntax(space, $"extern variable {variable.Name} is defined in no module");
        if (TryTake('=')) ReadInitial(variable);
        Expect(';');
        scope.Variables[variable.Name] = variable;
        return variable;
    }

    private PtxVariable ReadDeclarator(Space space, Token at)
    {
        int align = 0, elements = 1, vector = 1;
        PtxType type = default;
        while (Peek.Kind == TokenKind.Directive)
        {
            Token token = Take();
            if (token.Text == ".align") align = TakeInt();
            else if (token.Text == ".ptr")
            {
                if (Peek.Text is ".global" or ".shared" or ".const" or ".local") Take();
            }
            else if (token.Text is ".v2" or ".v4") vector = token.Text[2] - '0';
            else if (!PtxType.TryParse(token.Text[1..], out type)) throw Syntax(token, "not a type");
        }
        if (type.Kind == 0) throw Syntax(at, "variable without a type");
        string name = Take().Text;
        bool isUnsized = false;
        while (TryTake('['))
        {
            if (Peek.Is(']')) isUnsized = true;
            else elements *= TakeInt();
            Expect(']');
        }
        int natural = Math.Max(1, type.Bytes * vector);
        return new PtxVariable
        {
            Name = name, Space = space, Type = type, Align = align == 0 ? natural : align,
            Bytes = isUnsized ? 0 : (long)elements * natural,
        };
    }

    private void ReadInitial(PtxVariable variable)
    {
        variable.Initial = new byte[variable.Bytes];
        int size = variable.Type.Bytes, offset = 0;
        void Item()
        {
            if (TryTake('{'))
            {
                while (!TryTake('}'))
                {
                    Item();
                    TryTake(',');
                }
                return;
            }
            bool negative = TryTake('-');
            Token token = Take();
            if (token.Kind == TokenKind.Number)
            {
                PtxOperand value = Number(token, negative, variable.Type);
                BitConverter.GetBytes(value.Value).AsSpan(0, size).CopyTo(variable.Initial.AsSpan(offset));
            }
            else
            {
                string symbol = token.Text;
                if (symbol == "generic")
                {
                    Expect('(');
                    symbol = Take().Text;
                    Expect(')');
                }
                if (size != 8) throw Syntax(token, "an address needs a 64-bit element");
                long addend = TryTake('+') ? TakeInt() : 0;
                (variable.InitialAddresses ??= []).Add((offset, symbol, addend));
            }
            offset += size;
        }
        Item();
    }

    /// <summary>A number as the bits an instruction of <paramref name="type"/> would see.</summary>
    public static PtxOperand Number(Token token, bool negative, PtxType type)
    {
        string text = token.Text;
        if (text.Length > 2 && text[0] == '0' && text[1] is 'f' or 'F')
        {
            uint bits = uint.Parse(text.AsSpan(2), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
            return new PtxOperand { Kind = OperandKind.Immediate, Value = negative ? bits ^ 0x80000000u : bits, FloatBits = 32 };
        }
        if (text.Length > 2 && text[0] == '0' && text[1] is 'd' or 'D')
        {
            ulong bits = ulong.Parse(text.AsSpan(2), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
            return new PtxOperand { Kind = OperandKind.Immediate, Value = negative ? bits ^ (1ul << 63) : bits, FloatBits = 64 };
        }
        if (text.Contains('.', StringComparison.Ordinal))
        {
            double value = double.Parse(text, CultureInfo.InvariantCulture) * (negative ? -1 : 1);
            return type.Bits == 32
                ? new PtxOperand { Kind = OperandKind.Immediate, Value = BitConverter.SingleToUInt32Bits((float)value), FloatBits = 32 }
                : new PtxOperand { Kind = OperandKind.Immediate, Value = BitConverter.DoubleToUInt64Bits(value), FloatBits = 64 };
        }
        ulong integer = ParseInteger(text);
        return new PtxOperand { Kind = OperandKind.Immediate, Value = negative ? 0 - integer : integer };
    }

    // ---- What stands at the end of the file but is needed on the way ---------------------------------------------------------------

    private void ReadFiles()
    {
        for (int i = 0; i + 2 < _tokens.Count; i++)
            if (_tokens[i].Text == ".file" && _tokens[i + 2].Kind == TokenKind.Text)
                _module.Files[(int)ParseInteger(_tokens[i + 1].Text)] = _tokens[i + 2].Text;
    }

    private void SkipFile()
    {
        Take();
        Take();
        while (TryTake(',')) Take();
    }

    // .section .debug_str { label: .b8 95,90,...,0 ... } holds the names that .loc refers to as function_name.
    private void ReadDebugStrings()
    {
        for (int i = 0; i + 1 < _tokens.Count; i++)
        {
            if (_tokens[i].Text != ".section" || _tokens[i + 1].Text != ".debug_str") continue;
            string? label = null;
            var bytes = new List<byte>();
            void Flush()
            {
                if (label is not null) _module.DebugStrings[label] = Demangle(System.Text.Encoding.UTF8.GetString([.. bytes]).TrimEnd('\0'));
                bytes.Clear();
            }
            for (i += 3; i < _tokens.Count && !_tokens[i].Is('}'); i++)
            {
                if (_tokens[i].Kind == TokenKind.Word && _tokens[i + 1].Is(':'))
                {
                    Flush();
                    label = _tokens[i++].Text;
                }
                else if (_tokens[i].Kind == TokenKind.Number)
                {
                    bytes.Add((byte)ParseInteger(_tokens[i].Text));
                }
            }
            Flush();
        }
    }

    /// <summary>The plain name of a function, or of a variable inside one, in a mangled name: enough for a report.</summary>
    public static string Demangle(string name)
    {
        if (!name.StartsWith("_Z", StringComparison.Ordinal)) return name;
        if (LocalPattern().Match(name) is { Success: true } local && int.Parse(local.Groups[1].ValueSpan, CultureInfo.InvariantCulture) is var size && size <= local.Groups[2].Length)
            return local.Groups[2].Value[..size];
        int i = 2;
        while (i < name.Length && !char.IsAsciiDigit(name[i])) i++;
        string last = name;
        while (i < name.Length && char.IsAsciiDigit(name[i]))
        {
            int length = 0;
            while (i < name.Length && char.IsAsciiDigit(name[i])) length = length * 10 + name[i++] - '0';
            if (i + length > name.Length) break;
            last = name.Substring(i, length);
            i += length;
            if (name[2] != 'N') break;
        }
        return last;
    }

    [GeneratedRegex(@"^_ZZ.*E(\d+)([A-Za-z_]\w*)$")]
    private static partial Regex LocalPattern();

    private void SkipBraces()
    {
        while (!Take().Is('{')) { }
        for (int depth = 1; depth > 0;)
        {
            Token token = Take();
            if (token.Kind == TokenKind.End) throw Syntax(token, "unbalanced braces");
            if (token.Is('{')) depth++;
            if (token.Is('}')) depth--;
        }
    }
}
