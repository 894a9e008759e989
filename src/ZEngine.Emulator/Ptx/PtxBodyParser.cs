using System.Globalization;

namespace ZEngine.Emulator.Ptx;

/// <summary>Reads the body of a function.</summary>
internal sealed class PtxBodyParser(PtxParser parser, PtxFunction function)
{
    private Scope _scope = new(parser.Module.Globals);
    private readonly Dictionary<(int File, int Line, int Column), SourceLocation> _locations = [];
    private SourceLocation? _location;
    private uint _usedBytes = uint.MaxValue;
    private Token _opcode;

    public void Read()
    {
        foreach (PtxVariable parameter in function.Parameters.Concat(function.Results)) _scope.Variables[parameter.Name] = parameter;
        int depth = 1;
        while (depth > 0)
        {
            Token token = parser.Peek;
            if (token.Kind == TokenKind.End) throw parser.Syntax(token, "unbalanced braces");
            if (parser.TryTake('{'))
            {
                _scope = new Scope(_scope);
                depth++;
            }
            else if (parser.TryTake('}'))
            {
                _scope = _scope.Parent!;
                depth--;
            }
            else if (parser.TryTake(';'))
            {
            }
            else if (token.Kind == TokenKind.Directive)
            {
                ReadDirective(parser.Take());
            }
            else if (token.Kind == TokenKind.Word && parser.PeekSecond.Is(':'))
            {
                parser.Take();
                parser.Take();
                _scope.Labels[token.Text] = function.Instructions.Count;
            }
            else
            {
                ReadInstruction();
            }
        }
    }

    private void ReadDirective(Token token)
    {
        switch (token.Text)
        {
            case ".reg": ReadRegisters(); break;
            case ".local" or ".shared" or ".param": function.Variables.Add(parser.ReadVariable(token, _scope, isExtern: false)); break;
            case ".loc": ReadLocation(); break;
            case ".pragma": ReadPragma(); break;
            case ".callprototype" or ".calltargets": throw parser.Syntax(token, "indirect calls and function pointers are not supported");
            default: throw parser.Syntax(token, "directive not supported in a function");
        }
    }

    private void ReadRegisters()
    {
        Token typeToken = parser.Take();
        if (!PtxType.TryParse(typeToken.Text[1..], out PtxType type) || type.TotalBits > 64) throw parser.Syntax(typeToken, "register type not supported");
        do
        {
            string name = parser.Take().Text;
            if (parser.TryTake('<'))
            {
                int count = parser.TakeInt();
                parser.Expect('>');
                for (int i = 0; i < count; i++) AddRegister(name + i.ToString(CultureInfo.InvariantCulture), type);
            }
            else
            {
                AddRegister(name, type);
            }
        }
        while (parser.TryTake(','));
        parser.Expect(';');
    }

    private void AddRegister(string name, PtxType type)
    {
        var register = new PtxRegister(name, type);
        _scope.Registers[name] = register;
        function.Registers.Add(register);
    }

    // .loc file line column [, function_name label[+offset], inlined_at file line column]
    private void ReadLocation()
    {
        int file = parser.TakeInt(), line = parser.TakeInt(), column = parser.TakeInt();
        string? name = null;
        SourceLocation? outer = null;
        while (parser.TryTake(','))
        {
            Token what = parser.Take();
            if (what.Text == "function_name")
            {
                string label = parser.Take().Text;
                if (parser.TryTake('+')) parser.TakeInt();
                name = parser.Module.DebugStrings.GetValueOrDefault(label, label);
            }
            else if (what.Text == "inlined_at")
            {
                // The place of the call was a location before, and may itself be inlined somewhere.
                (int File, int Line, int Column) place = (parser.TakeInt(), parser.TakeInt(), parser.TakeInt());
                outer = _locations.GetValueOrDefault(place) ?? new SourceLocation(FileName(place.File), place.Line, place.Column, null, null);
            }
            else
            {
                throw parser.Syntax(what, "unknown part of .loc");
            }
        }
        // Line 0 stands for code the compiler moved or made: the last real line says more.
        if (line == 0 && _location is not null) return;
        _location = new SourceLocation(FileName(file), line, column, name, outer);
        bool isKnown = _locations.TryGetValue((file, line, column), out SourceLocation? known);
        _locations[(file, line, column)] = _location with { IsOneOfSeveral = isKnown && (known!.IsOneOfSeveral || known != _location) };
    }

    private string FileName(int file)
    {
        string path = parser.Module.Files.GetValueOrDefault(file, parser.Module.Name);
        return path[(path.LastIndexOf('/') + 1)..];
    }

    private void ReadPragma()
    {
        Token text = parser.Take();
        parser.Expect(';');
        if (text.Text.StartsWith("used_bytes_mask", StringComparison.Ordinal))
            _usedBytes = (uint)PtxParser.ParseInteger(text.Text["used_bytes_mask".Length..].Trim());
        else if (text.Text != "nounroll") throw parser.Syntax(text, "unknown pragma");
    }

    private void ReadInstruction()
    {
        PtxRegister? guard = null;
        bool negated = false;
        if (parser.TryTake('@'))
        {
            negated = parser.TryTake('!');
            Token name = parser.Take();
            guard = _scope.FindRegister(name.Text) ?? throw parser.Syntax(name, "unknown register");
        }
        Token token = parser.Take();
        if (token.Kind != TokenKind.Word) throw parser.Syntax(token, "expected an instruction");
        _opcode = token;
        string[] parts = token.Text.Split('.');
        var instruction = new PtxInstruction
        {
            Opcode = parts[0], Modifiers = parts[1..], Guard = guard, GuardNegated = negated, Line = token.Line, Source = _location,
            Scope = _scope, UsedBytes = _usedBytes,
        };
        _usedBytes = uint.MaxValue;
        PtxType type = TypeOf(instruction.Modifiers);
        var operands = new List<PtxOperand>();
        while (!parser.TryTake(';'))
        {
            operands.Add(ReadOperand(type));
            parser.TryTake(',');
        }
        instruction.Operands = [.. operands];
        function.Instructions.Add(instruction);
    }

    private static PtxType TypeOf(string[] modifiers)
    {
        for (int i = modifiers.Length - 1; i >= 0; i--) if (PtxType.TryParse(modifiers[i], out PtxType type)) return type;
        return default;
    }

    private PtxOperand ReadOperand(PtxType type)
    {
        if (parser.TryTake('(')) return new PtxOperand { Kind = OperandKind.List, Items = ReadItems(')', type) };
        if (parser.TryTake('{')) return new PtxOperand { Kind = OperandKind.Vector, Items = ReadItems('}', type) };
        if (parser.TryTake('['))
        {
            var memory = new PtxOperand { Kind = OperandKind.Memory, Base = ReadOperand(type) };
            memory.Offset = memory.Base.Offset;
            if (parser.Peek.Is(',')) throw parser.Syntax(_opcode, "operands with coordinates are not supported");
            parser.Expect(']');
            return memory;
        }
        if (parser.TryTake('!'))
        {
            PtxOperand operand = ReadOperand(type);
            operand.Negated = true;
            return operand;
        }
        bool negative = parser.TryTake('-');
        Token token = parser.Take();
        if (token.Kind == TokenKind.Number) return PtxParser.Number(token, negative, type);
        if (negative || token.Kind != TokenKind.Word) throw parser.Syntax(token, "expected an operand");
        PtxOperand named = Named(token);
        if (parser.TryTake('|')) named.Second = ReadOperand(type);
        if (parser.Peek.Is('+') || parser.Peek.Is('-'))
        {
            bool minus = parser.Take().Is('-');
            bool minusAgain = parser.TryTake('-');
            long offset = (long)PtxParser.ParseInteger(parser.Take().Text);
            named.Offset = minus != minusAgain ? -offset : offset;
        }
        return named;
    }

    private PtxOperand Named(Token token)
    {
        if (token.Text == "_") return new PtxOperand { Kind = OperandKind.Sink };
        if (_scope.FindRegister(token.Text) is { } register) return new PtxOperand { Kind = OperandKind.Register, Register = register, Name = token.Text };
        if (_scope.FindVariable(token.Text) is { } variable) return new PtxOperand { Kind = OperandKind.Symbol, Variable = variable, Name = token.Text };
        return new PtxOperand { Kind = token.Text[0] == '%' ? OperandKind.Special : OperandKind.Symbol, Name = token.Text };
    }

    private PtxOperand[] ReadItems(char end, PtxType type)
    {
        var items = new List<PtxOperand>();
        while (!parser.TryTake(end))
        {
            items.Add(ReadOperand(type));
            parser.TryTake(',');
        }
        return [.. items];
    }
}
