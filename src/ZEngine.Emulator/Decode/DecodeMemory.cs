using ZEngine.Emulator.Execution;
using ZEngine.Emulator.Ptx;

namespace ZEngine.Emulator.Decode;

/// <summary>Loads, stores, atomics, address conversions, asynchronous copies.</summary>
internal sealed unsafe partial class Decoder
{
    private bool DecodeMemory(ref Instruction d, Form form, out InstructionClass kind)
    {
        kind = InstructionClass.OtherMemory;
        switch (_current.Opcode)
        {
            case "ld" or "ldu": kind = DecodeAccess(ref d, form, isStore: false); return true;
            case "st": kind = DecodeAccess(ref d, form, isStore: true); return true;
            case "atom" or "red":
                DecodeAtomic(ref d, form, hasResult: _current.Opcode == "atom");
                kind = InstructionClass.Atomic;
                return true;
            case "cp":
                DecodeAsyncCopy(ref d, form);
                kind = InstructionClass.AsyncCopy;
                return true;
            case "prefetch" or "prefetchu":
                form.Take("global");
                if (form.TakeOneOf("L1", "L2", "L2::evict_last", "L2::evict_normal") is null) throw Unsupported("unknown form");
                d.Full = &WarpOps.Nothing;
                return true;
            case "cvta": DecodeAddressConversion(ref d, form); kind = InstructionClass.Integer; return true;
            case "isspacep":
                d.Immediate = form.TakeOneOf("global", "shared", "local", "const") switch { "shared" => 1, "local" => 2, "global" => 0, _ => throw Unsupported("unknown window") };
                Operands(2);
                d.X[0] = Destination(_current.Operands[0], PtxType.Pred);
                d.X[4] = Source(_current.Operands[1], PtxType.B64);
                d.Full = &OtherMemory.IsSpace;
                kind = InstructionClass.Integer;
                return true;
            default:
                return false;
        }
    }

    private static Space TakeSpace(Form form) =>
        form.TakeOneOf("global", "shared::cta", "shared", "local", "const", "param", "param::entry", "param::func") switch
        {
            "global" => Space.Global, "shared" or "shared::cta" => Space.Shared, "local" => Space.Local, "const" => Space.Const, "param" or "param::entry" or "param::func" => Space.Param,
            _ => Space.None,
        };

    private InstructionClass DecodeAccess(ref Instruction d, Form form, bool isStore)
    {
        string? semantics = form.TakeOneOf("volatile", "relaxed", "acquire", "release", "weak");
        if (semantics is "relaxed" or "acquire" or "release" && form.TakeOneOf("cta", "gpu", "sys", "cluster") is null) throw Unsupported("a scope is missing");
        if (semantics is "volatile" or "relaxed" or "acquire" or "release") d.Flags |= MemoryFlags.Strong;
        if (semantics is "relaxed" or "acquire" or "release") d.Flags |= MemoryFlags.AtomicStrength;
        if (semantics == "release") d.Flags |= MemoryFlags.Release;
        Space space = TakeSpace(form);
        // Hints about caches change no value.
        form.TakeOneOf("ca", "cg", "cs", "cv", "lu", "wb", "wt");
        if (form.Take("nc"))
        {
            if (space != Space.Global || isStore) throw Unsupported(".nc is for loads of global memory");
            d.Flags |= MemoryFlags.ReadOnly;
            _program.UsesReadOnlyPath = true;
        }
        while (form.TakeOneOf("L1::no_allocate", "L1::evict_last", "L1::evict_first", "L1::evict_normal", "L1::evict_unchanged", "L2::64B", "L2::128B", "L2::256B") is not null) { }
        string? vector = form.TakeOneOf("v2", "v4");
        PtxType type = form.TakeType();
        Operands(2);
        PtxOperand value = _current.Operands[isStore ? 1 : 0], memory = _current.Operands[isStore ? 0 : 1];
        d.Size = type.Bytes;
        d.Count = vector is null ? 1 : vector[1] - '0';
        if (d.Size * d.Count > 16) throw Unsupported("accesses of more than 16 bytes are not supported");
        if (type.IsSigned) d.Flags |= MemoryFlags.Signed;
        PtxOperand[] elements = vector is null ? [value] : value.Items;
        if (elements.Length != d.Count) throw Unsupported("the vector has another number of elements");
        for (int k = 0; k < elements.Length; k++) d.X[k] = Element(ref d, elements[k], type, isStore);
        if (Array.TrueForAll(elements, e => e.Kind == OperandKind.Sink)) throw Unsupported("no element is loaded");
        // Elements that go nowhere are not used, whatever the compiler read them for.
        if (!isStore && _current.UsedBytes == uint.MaxValue)
            for (int k = 0; k < elements.Length; k++) if (d.X[k] < 0) d.UsedBytes &= ~(((1u << d.Size) - 1) << (k * d.Size));
        if (memory.Kind != OperandKind.Memory) throw Unsupported("an address is needed here");
        if (space == Space.Param && memory.Base!.Variable is { } parameter && !IsEntryParameter(parameter)) space = Space.Local;
        Address(ref d, memory, space);
        d.Full = d.Partial = Handler(space, isStore);
        return (space, isStore) switch
        {
            (Space.Global or Space.None, false) => InstructionClass.GlobalLoad,
            (Space.Global or Space.None, true) => InstructionClass.GlobalStore,
            (Space.Shared, false) => InstructionClass.SharedLoad,
            (Space.Shared, true) => InstructionClass.SharedStore,
            _ => InstructionClass.OtherMemory,
        };
    }

    private bool IsEntryParameter(PtxVariable variable) => _program.Entry.Parameters.Contains(variable);

    private delegate*<Warp, Instruction*, uint, void> Handler(Space space, bool isStore) => (space, isStore) switch
    {
        (Space.Global or Space.Const, false) => &GlobalMemory.Load,
        (Space.Global, true) => &GlobalMemory.Store,
        (Space.Shared, false) => &SharedMemory.Load,
        (Space.Shared, true) => &SharedMemory.Store,
        (Space.Local, false) => &OtherMemory.LoadLocal,
        (Space.Local, true) => &OtherMemory.StoreLocal,
        (Space.None, false) => &OtherMemory.LoadGeneric,
        (Space.None, true) => &OtherMemory.StoreGeneric,
        (Space.Param, false) => &OtherMemory.LoadParameter,
        _ => throw Unsupported("this memory cannot be written"),
    };

    /// <summary>An element's register. It may be wider than the element, and says so in the flags.</summary>
    private int Element(ref Instruction d, PtxOperand operand, PtxType type, bool isStore)
    {
        if (operand.Kind == OperandKind.Sink && !isStore) return -1;
        if (operand.Kind == OperandKind.Register && operand.Register is { IsPredicate: false } register)
        {
            if (register.Type.TotalBits < type.TotalBits) throw Unsupported($"register {register.Name} is narrower than {type}");
            if (register.IsWide && type.Bytes < 8) d.Flags |= MemoryFlags.WideRegister;
            if (register.Type.TotalBits == 16) d.Flags |= MemoryFlags.NarrowRegister;
            if (register.Constant is not null && !isStore) throw Unsupported("the destination must be a register");
            return register.Constant is { } constant ? ConstantSlot(constant, register.IsWide) : register.Slot;
        }
        if (operand.Kind == OperandKind.Immediate && isStore) return ConstantSlot(ImmediateBits(operand, type), type.Bytes == 8);
        throw Unsupported("an element must be a register");
    }

    /// <summary>Base and offset of an address: X[4] and Immediate. Without a register the base is a constant address.</summary>
    private void Address(ref Instruction d, PtxOperand memory, Space space)
    {
        PtxOperand at = memory.Base!;
        switch (at.Kind)
        {
            case OperandKind.Register when at.Register!.Constant is { } constant:
                d.X[4] = ConstantSlot(constant, at.Register.IsWide);
                if (at.Register.IsWide) d.Flags |= MemoryFlags.WideAddress;
                d.Immediate = memory.Offset;
                break;
            case OperandKind.Register when !at.Register!.IsPredicate:
                d.X[4] = at.Register.Slot;
                if (at.Register.IsWide) d.Flags |= MemoryFlags.WideAddress;
                else if (space is Space.Global or Space.None or Space.Const) throw Unsupported("global addresses have 64 bits");
                d.Immediate = memory.Offset;
                break;
            case OperandKind.Symbol:
                if (at.Variable is { } variable && !Matches(variable.Space, space)) throw Unsupported($"{at.Name} is not in this memory");
                d.Immediate = (long)SymbolAddress(at);
                break;
            case OperandKind.Immediate:
                d.Immediate = (long)at.Value;
                break;
            default:
                throw Unsupported($"address {at.Name} is not supported");
        }
    }

    private static bool Matches(Space variable, Space access) =>
        variable == access || access == Space.None && variable == Space.Global || access == Space.Local && variable == Space.Param;

    private void DecodeAddressConversion(ref Instruction d, Form form)
    {
        bool isFrom = form.Take("to");
        Space space = TakeSpace(form);
        PtxType type = form.TakeType();
        if (type.TotalBits != 64) throw Unsupported("only 64-bit addresses");
        Place(ref d, type, 1);
        d.Flags = MemoryFlags.WideAddress | MemoryFlags.WideRegister;
        switch (space)
        {
            case Space.Global or Space.Const: Unary<Mov<ulong>, ulong>(ref d); return;
            case Space.Shared: d.Immediate = (long)AddressWindows.Shared; break;
            case Space.Local: d.Immediate = (long)AddressWindows.Local; break;
            case Space.Param when _function.IsEntry: d.Immediate = (long)AddressWindows.Parameter; break;
            default: throw Unsupported("generic addresses exist of global, shared and local memory and of a kernel's own parameters");
        }
        d.Full = d.Partial = isFrom ? &OtherMemory.FromGeneric : &OtherMemory.ToGeneric;
    }

    private void DecodeAtomic(ref Instruction d, Form form, bool hasResult)
    {
        string? semantics = form.TakeOneOf("relaxed", "acquire", "release", "acq_rel");
        form.TakeOneOf("cta", "gpu", "sys", "cluster");
        int space = TakeSpace(form) switch { Space.Global => Atomics.SpaceGlobal, Space.Shared => Atomics.SpaceShared, Space.None => Atomics.SpaceGeneric, _ => throw Unsupported("unknown memory") };
        string name = form.TakeOneOf("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec") ?? throw Unsupported("unknown operation");
        AtomicOperation operation = name switch
        {
            "add" => AtomicOperation.Add, "min" => AtomicOperation.Min, "max" => AtomicOperation.Max, "and" => AtomicOperation.And, "or" => AtomicOperation.Or,
            "xor" => AtomicOperation.Xor, "exch" => AtomicOperation.Exchange, "cas" => AtomicOperation.CompareExchange, "inc" => AtomicOperation.Increment, _ => AtomicOperation.Decrement,
        };
        form.Take("noftz");
        PtxType type = form.TakeType();
        bool isBitwise = operation is AtomicOperation.And or AtomicOperation.Or or AtomicOperation.Xor or AtomicOperation.Exchange or AtomicOperation.CompareExchange;
        int code = type.ToString() switch
        {
            "b16" when operation == AtomicOperation.CompareExchange => Atomics.TypeF16,
            "b32" when isBitwise => Atomics.TypeU32, "b64" when isBitwise => Atomics.TypeU64,
            "u32" when !isBitwise => Atomics.TypeU32, "s32" when operation <= AtomicOperation.Max => Atomics.TypeS32,
            "u64" when operation <= AtomicOperation.Max => Atomics.TypeU64, "s64" when operation is AtomicOperation.Min or AtomicOperation.Max => Atomics.TypeS64,
            "f32" when operation == AtomicOperation.Add => Atomics.TypeF32, "f64" when operation == AtomicOperation.Add => Atomics.TypeF64,
            "f16x2" when operation <= AtomicOperation.Max => Atomics.TypeF16x2, "bf16x2" when operation <= AtomicOperation.Max => Atomics.TypeBf16x2,
            "f16" when operation == AtomicOperation.Add => Atomics.TypeF16, "bf16" when operation == AtomicOperation.Add => Atomics.TypeBf16,
            _ => throw Unsupported("operation and type do not go together"),
        };
        PtxType register = type.TotalBits == 64 ? PtxType.B64 : type.TotalBits == 16 ? U16 : PtxType.B32;
        int next = 0;
        Operands((hasResult ? 1 : 0) + (operation == AtomicOperation.CompareExchange ? 3 : 2));
        if (hasResult) d.X[0] = Destination(_current.Operands[next++], register);
        PtxOperand memory = _current.Operands[next++];
        if (memory.Kind != OperandKind.Memory) throw Unsupported("an address is needed here");
        Address(ref d, memory, space == Atomics.SpaceShared ? Space.Shared : space == Atomics.SpaceGlobal ? Space.Global : Space.None);
        d.X[5] = Source(_current.Operands[next++], register);
        if (operation == AtomicOperation.CompareExchange) d.X[6] = Source(_current.Operands[next], register);
        d.Size = type.Bytes;
        d.Flags |= MemoryFlags.Strong | MemoryFlags.AtomicStrength | space << Atomics.SpaceShift | code << Atomics.TypeShift | (int)operation << Atomics.OperationShift;
        if (semantics is "release" or "acq_rel") d.Flags |= MemoryFlags.Release;
        d.Full = &Atomics.Run;
    }

    // cp.async.{ca,cg}.shared.global{.L2::..} [dst], [src], size{, src-size | ignore-src}
    private void DecodeAsyncCopy(ref Instruction d, Form form)
    {
        if (!form.Take("async")) throw Unsupported("only cp.async");
        if (form.Take("commit_group"))
        {
            Operands(0);
            d.Full = &AsyncCopies.Commit;
            return;
        }
        if (form.Take("wait_all"))
        {
            d.Immediate = -1;
            d.Full = &AsyncCopies.Wait;
            return;
        }
        if (form.Take("wait_group"))
        {
            Operands(1);
            d.Immediate = (long)Immediate(_current.Operands[0]);
            d.Full = &AsyncCopies.Wait;
            return;
        }
        string level = form.TakeOneOf("ca", "cg") ?? throw Unsupported("this asynchronous copy is not supported");
        if (TakeSpace(form) != Space.Shared || !form.Take("global")) throw Unsupported("only from global to shared memory");
        form.TakeOneOf("L2::64B", "L2::128B", "L2::256B");
        PtxOperand[] operands = _current.Operands;
        if (operands.Length is not (3 or 4) || operands[0].Kind != OperandKind.Memory || operands[1].Kind != OperandKind.Memory) throw Unsupported("unknown operands");
        d.Size = (int)Immediate(operands[2]);
        if (d.Size is not (4 or 8 or 16) || level == "cg" && d.Size != 16) throw Unsupported($"a copy of {d.Size} bytes does not exist for .{level}");
        Address(ref d, operands[0], Space.Shared);
        PtxOperand source = operands[1].Base!;
        d.X[5] = Source(source.Kind == OperandKind.Register ? source : throw Unsupported("the source must be a register"), PtxType.B64);
        d.Target = checked((int)operands[1].Offset);
        if (operands.Length == 4 && operands[3].Register is { IsPredicate: true } ignore) d.X[7] = ignore.Slot;
        else if (operands.Length == 4) d.X[6] = Source(operands[3], PtxType.U32);
        d.Full = &AsyncCopies.Issue;
    }
}
