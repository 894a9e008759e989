using ZEngine.Emulator.Execution;
using ZEngine.Emulator.Ptx;

namespace ZEngine.Emulator.Decode;

/// <summary>
/// Turns a kernel and the functions it calls into instructions the run loop executes. Every modifier must be known: what is left over
/// fails here, when the module is loaded.
/// </summary>
internal sealed unsafe partial class Decoder
{
    private readonly PtxModule _module;
    private readonly KernelProgram _program;
    private readonly Dictionary<(ulong, bool), int> _constants = [];
    private readonly Dictionary<string, int> _specials = [];
    private readonly List<Instruction> _code = [];
    private readonly List<PtxInstruction> _source = [];
    private readonly List<LaunchProfile.InstructionInfo> _infos = [];
    private readonly Dictionary<PtxFunction, int> _functionStart = [];
    private readonly Dictionary<PtxFunction, int[]> _positions = [];
    private readonly List<(int Instruction, PtxFunction Callee)> _calls = [];
    private PtxInstruction _current = null!;
    private PtxFunction _function = null!;

    private readonly EmulatorOptions _options;

    private Decoder(PtxModule module, KernelProgram program, EmulatorOptions options)
    {
        _module = module;
        _program = program;
        _options = options;
    }

    /// <summary>Decodes an entry. Addresses of module variables must have been assigned.</summary>
    public static KernelProgram Decode(PtxModule module, PtxFunction entry, EmulatorOptions options)
    {
        var program = new KernelProgram { Name = entry.Name, ModuleName = module.Name, Entry = entry, Source = [], Infos = [] };
        var decoder = new Decoder(module, program, options);
        decoder.Run(entry);
        program.Source = [.. decoder._source];
        program.Infos = [.. decoder._infos];
        program.SetCode(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(decoder._code));
        return program;
    }

    private void Run(PtxFunction entry)
    {
        List<PtxFunction> functions = Reachable(entry);
        LayOutShared(functions);
        foreach (PtxFunction function in functions) FindConstants(function);
        foreach (PtxFunction function in functions) LayOut(function);
        foreach (PtxFunction function in functions) Place(function);
        foreach (PtxFunction function in functions)
        {
            _function = function;
            for (int k = 0; k < function.Instructions.Count; k++) DecodeOne(function.Instructions[k]);
            // Control never runs off the end; should it, that is a fault and not a walk into the next function.
            Emit(new PtxInstruction { Opcode = "trap", Modifiers = [], Scope = new Scope(null), Line = function.Line });
        }
        foreach ((int at, PtxFunction callee) in _calls) SetTarget(at, _functionStart[callee]);
        _program.LocalBytes = (_program.LocalBytes + 15) / 16 * 16;
        _program.ParameterBytes = entry.Parameters.Count == 0 ? 0 : (int)(entry.Parameters[^1].Address + (ulong)entry.Parameters[^1].Bytes);
        MarkBlocks();
    }

    // ---- Functions, registers, memory ------------------------------------------------------------------------------------------------

    private List<PtxFunction> Reachable(PtxFunction entry)
    {
        var order = new List<PtxFunction>();
        var active = new HashSet<PtxFunction>();
        void Visit(PtxFunction function, PtxInstruction? from)
        {
            if (!active.Add(function)) throw Unsupported(from!, $"{PtxParser.Demangle(function.Name)} calls itself, at once or through others; recursion needs a stack that does not exist here");
            if (!order.Contains(function))
            {
                order.Add(function);
                foreach (PtxInstruction call in function.Instructions.Where(i => i.Opcode == "call"))
                    if (Callee(call) is { } callee) Visit(callee, call);
            }
            active.Remove(function);
        }
        Visit(entry, null);
        return order;
    }

    private const string Print = "vprintf", AssertionFailed = "__assertfail";

    /// <summary>The function a call names; null for those that the emulator itself is.</summary>
    private PtxFunction? Callee(PtxInstruction call)
    {
        // The target stands first, or second after the results in parentheses.
        PtxOperand target = call.Operands.FirstOrDefault(o => o.Kind != OperandKind.List) ?? throw Unsupported(call, "the call has no target");
        if (target.Kind != OperandKind.Symbol) throw Unsupported(call, $"the function to call is chosen at run time, by {target.Name}; indirect calls and function pointers are not supported");
        if (target.Name is AssertionFailed or Print) return null;
        if (!_module.Functions.TryGetValue(target.Name, out PtxFunction? callee) || !callee.HasBody)
            throw Unsupported(call, $"function {PtxParser.Demangle(target.Name)} is defined in no module" + (target.Name is "malloc" or "free" ? "; memory on the device's heap is not supported" : ""));
        return callee;
    }

    private void LayOutShared(List<PtxFunction> functions)
    {
        ulong at = 0;
        var used = new HashSet<PtxVariable>();
        void Use(PtxOperand operand)
        {
            if (operand.Variable is { Space: Space.Shared } variable) used.Add(variable);
            if (operand.Base is not null) Use(operand.Base);
            foreach (PtxOperand item in operand.Items) Use(item);
        }
        foreach (PtxFunction function in functions)
            foreach (PtxInstruction instruction in function.Instructions)
                foreach (PtxOperand operand in instruction.Operands) Use(operand);
        int alignment = 16;
        foreach (PtxVariable variable in used.Where(v => !v.IsExtern).OrderByDescending(v => v.Align).ThenBy(v => v.Name, StringComparer.Ordinal))
        {
            at = (at + (ulong)variable.Align - 1) / (ulong)variable.Align * (ulong)variable.Align;
            variable.Address = at;
            at += (ulong)variable.Bytes;
            _program.SharedVariables.Add((variable.Name, variable.Address, variable.Bytes));
        }
        _program.StaticSharedBytes = (int)at;
        foreach (PtxVariable variable in used.Where(v => v.IsExtern)) alignment = Math.Max(alignment, variable.Align);
        _program.DynamicSharedOffset = ((int)at + alignment - 1) / alignment * alignment;
        foreach (PtxVariable variable in used.Where(v => v.IsExtern))
        {
            variable.Address = (ulong)_program.DynamicSharedOffset;
            _program.UsesDynamicShared = true;
        }
        if (!_program.UsesDynamicShared) _program.DynamicSharedOffset = (int)at;
    }

    // A register whose only definition is a move of an immediate is that immediate.
    private static void FindConstants(PtxFunction function)
    {
        foreach (PtxRegister register in function.Registers)
        {
            register.Definitions = 0;
            register.Constant = null;
            register.Slot = -1;
        }
        foreach (PtxInstruction instruction in function.Instructions)
            foreach (PtxRegister register in Destinations(instruction)) register.Definitions++;
        foreach (PtxInstruction instruction in function.Instructions)
        {
            if (instruction.Opcode != "mov" || instruction.Guard is not null || instruction.Operands is not [{ Kind: OperandKind.Register, Register: { Definitions: 1 } target }, { Kind: OperandKind.Immediate } value]) continue;
            if (target.IsPredicate || !PtxType.TryParse(instruction.Modifiers[^1], out PtxType type) || type.TotalBits != target.Type.TotalBits) continue;
            target.Constant = ImmediateBits(value, type);
        }
    }

    private static IEnumerable<PtxRegister> Destinations(PtxInstruction instruction)
    {
        if (instruction.Operands.Length == 0 || instruction.Opcode is "st" or "red" or "bra" or "call") yield break;
        PtxOperand first = instruction.Operands[0];
        if (first.Register is not null) yield return first.Register;
        if (first.Second?.Register is not null) yield return first.Second.Register;
        foreach (PtxOperand item in first.Items) if (item.Register is not null) yield return item.Register;
    }

    private void LayOut(PtxFunction function)
    {
        foreach (PtxRegister register in function.Registers)
        {
            if (register.Constant is not null) continue;
            register.Slot = TakeSlot(register.IsPredicate ? 4 : register.IsWide ? 256 : 128);
        }
        IEnumerable<PtxVariable> locals = function.Variables.Where(v => v.Space is Space.Local or Space.Param);
        if (!function.IsEntry) locals = locals.Concat(function.Parameters).Concat(function.Results);
        foreach (PtxVariable variable in locals)
        {
            int align = Math.Max(4, variable.Align);
            _program.LocalBytes = (_program.LocalBytes + align - 1) / align * align;
            variable.Address = (ulong)_program.LocalBytes;
            _program.LocalBytes += (int)((variable.Bytes + 3) / 4 * 4);
        }
    }

    private int TakeSlot(int bytes)
    {
        // Registers of 64-byte vectors are aligned; the small predicates share lines.
        int align = Math.Min(bytes, 64);
        int slot = (_program.RegisterBytes + align - 1) / align * align;
        _program.RegisterBytes = slot + bytes;
        return slot;
    }

    private static bool IsDropped(PtxInstruction i) =>
        i.Opcode == "mov" && i.Operands is [{ Register: { Constant: not null } }, { Kind: OperandKind.Immediate }];

    private int _placed;

    private void Place(PtxFunction function)
    {
        int[] positions = new int[function.Instructions.Count + 1];
        _functionStart[function] = _placed;
        for (int k = 0; k < function.Instructions.Count; k++)
        {
            positions[k] = _placed;
            PtxInstruction i = function.Instructions[k];
            _placed += IsDropped(i) ? 0 : i.Opcode == "call" ? 2 : 1;
        }
        positions[^1] = _placed++;
        _positions[function] = positions;
    }

    private void MarkBlocks()
    {
        for (int k = 0; k < _code.Count; k++)
        {
            Instruction i = _code[k];
            if (i.Kind is InstructionKind.Branch or InstructionKind.Call) Mark(i.Target);
            if (i.Kind is not InstructionKind.Normal && k + 1 < _code.Count) Mark(k + 1);
            if (i.Kind == InstructionKind.Branch && i.Target <= k) MarkSpinLoads(i.Target, k);
        }
    }

    // A loop that neither stores nor meets other lanes can only be waiting for what its strong loads read.
    private void MarkSpinLoads(int from, int to)
    {
        for (int k = from; k <= to; k++)
        {
            if (_infos[k].Class is InstructionClass.GlobalStore or InstructionClass.SharedStore or InstructionClass.Atomic or InstructionClass.Warp or InstructionClass.Barrier or InstructionClass.AsyncCopy) return;
            if (_code[k].Kind is InstructionKind.Call or InstructionKind.Collective || _source[k].Opcode == "st") return;
        }
        for (int k = from; k <= to; k++)
        {
            if (_source[k].Opcode != "ld" || (_code[k].Flags & MemoryFlags.Strong) == 0) continue;
            Instruction i = _code[k];
            i.Flags |= MemoryFlags.Spin | MemoryFlags.AtomicStrength;
            _code[k] = i;
        }
    }

    private void Mark(int index)
    {
        Instruction i = _code[index];
        i.StartsBlock = true;
        _code[index] = i;
    }

    private void SetTarget(int at, int target)
    {
        Instruction i = _code[at];
        i.Target = target;
        _code[at] = i;
    }

    // ---- Operands --------------------------------------------------------------------------------------------------------------------

    private static ulong ImmediateBits(PtxOperand operand, PtxType type)
    {
        ulong value = operand.Value;
        if (operand.FloatBits == 64 && type.TotalBits == 32) value = BitConverter.SingleToUInt32Bits((float)BitConverter.UInt64BitsToDouble(value));
        else if (operand.FloatBits == 32 && type.TotalBits == 64) value = BitConverter.DoubleToUInt64Bits(BitConverter.UInt32BitsToSingle((uint)value));
        return type.TotalBits switch { 8 => (byte)value, 16 => (ushort)value, 32 => (uint)value, _ => value };
    }

    private int ConstantSlot(ulong value, bool isWide)
    {
        if (_constants.TryGetValue((value, isWide), out int slot)) return slot;
        slot = TakeSlot(isWide ? 256 : 128);
        _constants.Add((value, isWide), slot);
        _program.Constants.Add((slot, value, isWide));
        return slot;
    }

    /// <summary>The slot of a source operand of a type. Its register must have the type's width.</summary>
    private int Source(PtxOperand operand, PtxType type)
    {
        if (operand.Negated) throw Unsupported("a negated operand is not allowed here");
        switch (operand.Kind)
        {
            case OperandKind.Register:
                PtxRegister register = operand.Register!;
                if (type.Kind == 'p' != register.IsPredicate || type.TotalBits == 64 != register.IsWide) throw Unsupported($"register {register.Name} ({register.Type}) does not fit {type}");
                return register.Constant is { } constant ? ConstantSlot(constant, register.IsWide) : register.Slot;
            case OperandKind.Immediate when type.Kind != 'p':
                return ConstantSlot(ImmediateBits(operand, type), type.TotalBits == 64);
            case OperandKind.Symbol:
                return ConstantSlot(SymbolAddress(operand), type.TotalBits == 64);
            case OperandKind.Special when SpecialRegisters.IsFixed(operand.Name) && type.TotalBits == 32:
                return SpecialSlot(operand.Name);
            default:
                throw Unsupported($"operand {operand.Name} cannot be used here");
        }
    }

    private int SpecialSlot(string name)
    {
        if (_specials.TryGetValue(name, out int slot)) return slot;
        slot = TakeSlot(128);
        _specials.Add(name, slot);
        _program.Specials.Add((slot, name));
        return slot;
    }

    private ulong SymbolAddress(PtxOperand operand)
    {
        PtxVariable variable = operand.Variable ?? throw Unsupported(_module.Functions.ContainsKey(operand.Name)
            ? $"the address of function {PtxParser.Demangle(operand.Name)} is taken; indirect calls and function pointers are not supported" : $"{operand.Name} is not a variable");
        ulong address = variable.Space == Space.Shared ? variable.Address + Block.SharedBase : variable.Address;
        return address + (ulong)operand.Offset;
    }

    /// <summary>The slot of a destination register of a type, or -1 for the sink.</summary>
    private int Destination(PtxOperand operand, PtxType type)
    {
        if (operand.Kind == OperandKind.Sink) return -1;
        if (operand.Kind != OperandKind.Register || operand.Register!.Constant is not null) throw Unsupported("the destination must be a register");
        if (type.Kind == 'p' != operand.Register.IsPredicate || type.TotalBits == 64 != operand.Register.IsWide) throw Unsupported($"register {operand.Name} ({operand.Register.Type}) does not fit {type}");
        return operand.Register.Slot;
    }

    private PtxUnsupportedException Unsupported(string reason) => Unsupported(_current, reason);

    private PtxUnsupportedException Unsupported(PtxInstruction i, string reason) =>
        new(i.Form, reason, $"{_module.Name}, PTX line {i.Line}" + (i.Source is null ? "" : $", {i.Source}"));

    private void Operands(int count)
    {
        if (_current.Operands.Length != count) throw Unsupported($"expected {count} operands, found {_current.Operands.Length}");
    }

    // ---- One instruction -----------------------------------------------------------------------------------------------------------

    private void Emit(PtxInstruction i)
    {
        _current = i;
        var d = new Instruction { Index = _code.Count, Guard = -1, MemberMask = -1, UsedBytes = i.UsedBytes, Count = 1 };
        for (int k = 0; k < 16; k++) d.X[k] = -1;
        if (i.Guard is not null)
        {
            d.Guard = i.Guard.Slot;
            d.GuardNegated = i.GuardNegated;
        }
        var form = new Form(i, this);
        InstructionClass kind = DecodeForm(ref d, form, out long flops);
        form.Done();
        if (d.Partial == null) d.Partial = d.Full;
        if (IsSync(i)) _program.Syncs.Add((new SyncInstruction(_program.Name, _program.Syncs.Count, i.Form, i.Line, i.Source?.File ?? "", i.Source?.Line ?? 0), _code.Count));
        _options.Mutation?.Apply(i, ref d);
        _code.Add(d);
        _source.Add(i);
        _infos.Add(new LaunchProfile.InstructionInfo(kind, i.Source?.Line ?? 0, i.Form, flops));
    }

    // What only orders threads, or waits for a copy. A reduction over a barrier also computes; without it its result is undefined.
    private static bool IsSync(PtxInstruction i) =>
        i.Opcode is "bar" or "barrier" or "membar" or "fence" || i.Opcode == "cp" && (i.Has("commit_group") || i.Has("wait_group") || i.Has("wait_all"));

    private void DecodeOne(PtxInstruction i)
    {
        if (IsDropped(i)) return;
        _current = i;
        if (i.Opcode == "call") DecodeCall(i);
        else Emit(i);
    }

    private InstructionClass DecodeForm(ref Instruction d, Form form, out long flops)
    {
        flops = 0;
        string opcode = _current.Opcode;
        if (DecodeFlow(ref d, form)) return InstructionClass.Control;
        if (DecodeMemory(ref d, form, out InstructionClass memory)) return memory;
        if (DecodeWarp(ref d, form, out InstructionClass warp, out flops)) return warp;
        if (opcode == "cvt")
        {
            DecodeConvert(ref d, form);
            return InstructionClass.Convert;
        }
        return DecodeArithmetic(ref d, form);
    }

    private bool DecodeFlow(ref Instruction d, Form form)
    {
        switch (_current.Opcode)
        {
            case "bra":
                form.Take("uni");
                Operands(1);
                d.Kind = InstructionKind.Branch;
                string label = _current.Operands[0].Name;
                int target = _current.Scope.FindLabel(label) ?? throw Unsupported($"label {label} does not exist");
                d.Target = _positions[_function][target];
                return true;
            case "ret":
                form.Take("uni");
                d.Kind = _function.IsEntry ? InstructionKind.Exit : InstructionKind.Return;
                return true;
            case "exit":
                d.Kind = InstructionKind.Exit;
                return true;
            case "trap":
                d.Full = &WarpOps.Trap;
                return true;
            case "brkpt":
                throw Unsupported("breakpoints are not supported");
            case "nanosleep":
                form.TakeType();
                d.Kind = InstructionKind.Yield;
                d.Full = &WarpOps.Nothing;
                return true;
            default:
                return false;
        }
    }

    // A call is two instructions: the first hands over the arguments and goes, the second is where it returns to and fetches the results.
    private void DecodeCall(PtxInstruction i)
    {
        PtxFunction? callee = Callee(i);
        if (callee is null && i.Operands.Any(o => o.Name == Print))
        {
            EmitPrint(i);
            return;
        }
        if (callee is null)
        {
            var assertion = new PtxInstruction { Opcode = "trap", Modifiers = [], Line = i.Line, Source = i.Source, Scope = i.Scope, Guard = i.Guard, GuardNegated = i.GuardNegated };
            Emit(assertion);
            Emit(assertion);
            return;
        }
        int nameAt = Array.FindIndex(i.Operands, o => o.Kind == OperandKind.Symbol);
        PtxOperand[] results = nameAt > 0 ? i.Operands[0].Items : [], arguments = nameAt + 1 < i.Operands.Length ? i.Operands[nameAt + 1].Items : [];
        if (results.Length != callee.Results.Count || arguments.Length != callee.Parameters.Count) throw Unsupported("arguments and parameters do not match");
        foreach (string modifier in i.Modifiers) if (modifier != "uni") throw Unsupported($"modifier .{modifier} is unknown");
        _calls.Add((_code.Count, callee));
        EmitCopies(i, InstructionKind.Call, arguments.Zip(callee.Parameters, (from, to) => (Variable(from), to)));
        EmitCopies(i, InstructionKind.Normal, results.Zip(callee.Results, (to, from) => (from, Variable(to))));
    }

    // call (result), vprintf, (format, arguments)
    private void EmitPrint(PtxInstruction i)
    {
        if (i.Operands is not [{ Kind: OperandKind.List, Items: [var result] }, _, { Kind: OperandKind.List, Items: [var format, var arguments] }]) throw Unsupported("unknown operands");
        EmitCopies(i, InstructionKind.Normal, []);
        Instruction d = _code[^1];
        (d.Immediate, d.Size, d.Target) = ((long)Variable(format).Address, (int)Variable(arguments).Address, (int)Variable(result).Address);
        d.Full = d.Partial = &DevicePrintf.Run;
        _code[^1] = d;
        EmitCopies(i, InstructionKind.Normal, []);
    }

    private PtxVariable Variable(PtxOperand operand) =>
        operand.Variable is { Space: Space.Param } variable ? variable : throw Unsupported("calls pass .param variables only");

    private void EmitCopies(PtxInstruction i, InstructionKind kind, IEnumerable<(PtxVariable From, PtxVariable To)> pairs)
    {
        var d = new Instruction { Index = _code.Count, Guard = -1, MemberMask = -1, Kind = kind, Full = &CopyArguments, Partial = &CopyArguments };
        if (i.Guard is not null)
        {
            d.Guard = i.Guard.Slot;
            d.GuardNegated = i.GuardNegated;
        }
        d.Immediate = _program.Copies.Count;
        _program.Copies.Add([.. pairs.Select(p => ((int)p.From.Address, (int)p.To.Address, (int)Math.Min(p.From.Bytes, p.To.Bytes)))]);
        _code.Add(d);
        _source.Add(i);
        _infos.Add(new LaunchProfile.InstructionInfo(InstructionClass.Control, i.Source?.Line ?? 0, i.Form, 0));
    }

    private static void CopyArguments(Warp w, Instruction* i, uint mask)
    {
        foreach ((int from, int to, int bytes) in w.Launch.Program.Copies[(int)i->Immediate]) OtherMemory.CopyLocal(w, mask, from, to, bytes);
    }
}

/// <summary>The modifiers of an instruction, taken one by one in order. What nobody took is not supported.</summary>
internal sealed class Form(PtxInstruction instruction, Decoder decoder)
{
    private int _next;

    public string? Peek => _next < instruction.Modifiers.Length ? instruction.Modifiers[_next] : null;

    public bool Take(string modifier)
    {
        if (Peek != modifier) return false;
        _next++;
        return true;
    }

    /// <summary>The next modifier when it is one of some.</summary>
    public string? TakeOneOf(params ReadOnlySpan<string> modifiers)
    {
        foreach (string modifier in modifiers) if (Take(modifier)) return modifier;
        return null;
    }

    public PtxType TakeType()
    {
        if (Peek is not null && PtxType.TryParse(Peek, out PtxType type))
        {
            _next++;
            return type;
        }
        throw decoder.Fail(instruction, Peek is null ? "a type is missing" : $"modifier .{Peek} is not supported");
    }

    public void Done()
    {
        if (Peek is not null) throw decoder.Fail(instruction, $"modifier .{Peek} is not supported");
    }
}

internal sealed partial class Decoder
{
    internal PtxUnsupportedException Fail(PtxInstruction i, string reason) => Unsupported(i, reason);
}
