using ZEngine.Emulator.Execution;
using ZEngine.Emulator.Ptx;

namespace ZEngine.Emulator.Decode;

/// <summary>Logic, shifts, bit fields and conversions.</summary>
internal sealed unsafe partial class Decoder
{
    private static readonly PtxType U16 = new('u', 16), S32 = new('s', 32), F32 = new('f', 32);

    private void DecodeInteger(ref Instruction d, Form form, string opcode)
    {
        switch (opcode)
        {
            case "and" or "or" or "xor": DecodeLogic(ref d, form, opcode); break;
            case "not" or "cnot": DecodeNot(ref d, form, opcode); break;
            case "shl" or "shr": DecodeShift(ref d, form, opcode == "shl"); break;
            case "rem": DecodeRemainder(ref d, form); break;
            case "lop3":
                form.TakeType();
                Operands(5);
                d.X[0] = Destination(_current.Operands[0], PtxType.B32);
                for (int k = 0; k < 3; k++) d.X[4 + k] = Source(_current.Operands[k + 1], PtxType.B32);
                d.Immediate = (long)Immediate(_current.Operands[4]);
                d.Full = d.Partial = &Moves.Lop3;
                break;
            case "shf": DecodeFunnel(ref d, form); break;
            case "prmt":
                if (form.TakeType() != PtxType.B32) throw Unsupported("only .b32");
                Place(ref d, PtxType.B32, 3);
                Scalar<Prmt, uint, uint, uint, uint>(ref d);
                break;
            case "popc" or "clz" or "brev" or "bfind": DecodeBitCount(ref d, form, opcode); break;
            case "bfe": DecodeExtract(ref d, form); break;
            case "bfi":
                PtxType type = form.TakeType();
                PlaceMixed(ref d, type, type, type, PtxType.U32, PtxType.U32);
                d.Size = type.Bytes;
                d.Full = d.Partial = &Moves.BitFieldInsert;
                break;
            case "sad": DecodeSad(ref d, form); break;
            case "dp4a":
                PtxType a = form.TakeType(), b = form.TakeType();
                Place(ref d, PtxType.B32, 3);
                switch (a.Kind, b.Kind)
                {
                    case ('s', 's'): Scalar<Dp4a<sbyte, sbyte>, uint, uint, uint, uint>(ref d); break;
                    case ('u', 's'): Scalar<Dp4a<byte, sbyte>, uint, uint, uint, uint>(ref d); break;
                    case ('s', 'u'): Scalar<Dp4a<sbyte, byte>, uint, uint, uint, uint>(ref d); break;
                    default: Scalar<Dp4a<byte, byte>, uint, uint, uint, uint>(ref d); break;
                }
                break;
            case "copysign":
                PtxType floating = form.TakeType();
                Place(ref d, floating, 2);
                if (floating.Bits == 64) Scalar<Copysign64, ulong, ulong, ulong>(ref d);
                else Scalar<Copysign32, uint, uint, uint>(ref d);
                break;
            default:
                throw Unsupported("this opcode is not supported");
        }
    }

    private ulong Immediate(PtxOperand operand) =>
        operand.Kind == OperandKind.Immediate ? operand.Value : operand.Register?.Constant ?? throw Unsupported("an immediate is needed here");

    private void DecodeLogic(ref Instruction d, Form form, string opcode)
    {
        PtxType type = form.TakeType();
        if (type.Kind == 'p')
        {
            Operands(3);
            d.X[0] = Destination(_current.Operands[0], type);
            d.X[4] = PredicateSource(_current.Operands[1]);
            d.X[5] = PredicateSource(_current.Operands[2]);
            d.Full = d.Partial = opcode switch { "and" => &Moves.PredicateAnd, "or" => &Moves.PredicateOr, _ => &Moves.PredicateXor };
            return;
        }
        Place(ref d, type, 2);
        switch (opcode, type.TotalBits == 64)
        {
            case ("and", false): Binary<And<uint>, uint>(ref d); break;
            case ("and", true): Binary<And<ulong>, ulong>(ref d); break;
            case ("or", false): Binary<Or<uint>, uint>(ref d); break;
            case ("or", true): Binary<Or<ulong>, ulong>(ref d); break;
            case ("xor", false): Binary<Xor<uint>, uint>(ref d); break;
            default: Binary<Xor<ulong>, ulong>(ref d); break;
        }
    }

    private void DecodeNot(ref Instruction d, Form form, string opcode)
    {
        PtxType type = form.TakeType();
        if (type.Kind == 'p' && opcode == "not")
        {
            Operands(2);
            d.X[0] = Destination(_current.Operands[0], type);
            d.X[4] = PredicateSource(_current.Operands[1]);
            d.Full = d.Partial = &Moves.PredicateNot;
            return;
        }
        Place(ref d, type, 1);
        switch (opcode, type.TotalBits)
        {
            case ("not", 16): Unary<Not16, uint>(ref d); break;
            case ("not", 32): Unary<Not<uint>, uint>(ref d); break;
            case ("not", 64): Unary<Not<ulong>, ulong>(ref d); break;
            case ("cnot", 16 or 32): Scalar<CnotU32, uint, uint>(ref d); break;
            default: throw Unsupported("not supported for this type");
        }
    }

    private void DecodeShift(ref Instruction d, Form form, bool isLeft)
    {
        PtxType type = form.TakeType();
        PlaceMixed(ref d, type, type, PtxType.U32);
        switch (isLeft, type.TotalBits, type.IsSigned)
        {
            case (true, 16, _): Scalar<Shl<ushort>, ushort, uint, ushort>(ref d); break;
            case (true, 32, _): Binary<Shl32, uint>(ref d); break;
            case (true, 64, _): d.Full = d.Partial = &WideOps.ShiftLeft; break;
            case (false, 16, true): Scalar<Shr<short>, short, uint, short>(ref d); break;
            case (false, 16, false): Scalar<Shr<ushort>, ushort, uint, ushort>(ref d); break;
            case (false, 32, true): Binary<ShrS32, uint>(ref d); break;
            case (false, 32, false): Binary<ShrU32, uint>(ref d); break;
            case (false, 64, true): Scalar<Shr<long>, long, uint, long>(ref d); break;
            case (false, 64, false): d.Full = d.Partial = &WideOps.ShiftRight; break;
            default: throw Unsupported("not supported for this type");
        }
    }

    private void DecodeRemainder(ref Instruction d, Form form)
    {
        PtxType type = form.TakeType();
        Place(ref d, type, 2);
        switch (type.Kind, type.Bits)
        {
            case ('s', 16): Scalar<RemInt<short>, short, short, short>(ref d); break;
            case ('u', 16): Scalar<RemInt<ushort>, ushort, ushort, ushort>(ref d); break;
            case ('s', 32): Scalar<RemInt<int>, int, int, int>(ref d); break;
            case ('u', 32): Scalar<RemInt<uint>, uint, uint, uint>(ref d); break;
            case ('s', 64): Scalar<RemInt<long>, long, long, long>(ref d); break;
            case ('u', 64): Scalar<RemInt<ulong>, ulong, ulong, ulong>(ref d); break;
            default: throw Unsupported("not supported for this type");
        }
    }

    private void DecodeFunnel(ref Instruction d, Form form)
    {
        string? direction = form.TakeOneOf("l", "r"), mode = form.TakeOneOf("wrap", "clamp");
        if (form.TakeType() != PtxType.B32) throw Unsupported("only .b32");
        Place(ref d, PtxType.B32, 3);
        switch (direction, mode)
        {
            case ("l", "wrap"): Scalar<ShfLeftWrap, uint, uint, uint, uint>(ref d); break;
            case ("l", "clamp"): Scalar<ShfLeftClamp, uint, uint, uint, uint>(ref d); break;
            case ("r", "wrap"): Scalar<ShfRightWrap, uint, uint, uint, uint>(ref d); break;
            case ("r", "clamp"): Scalar<ShfRightClamp, uint, uint, uint, uint>(ref d); break;
            default: throw Unsupported("unknown form");
        }
    }

    private void DecodeBitCount(ref Instruction d, Form form, string opcode)
    {
        bool shift = form.Take("shiftamt");
        PtxType type = form.TakeType();
        PlaceMixed(ref d, opcode == "brev" ? type : PtxType.U32, type);
        switch (opcode, type.Bits, type.IsSigned)
        {
            case ("popc", 32, _): Scalar<Popc32, uint, uint>(ref d); break;
            case ("popc", 64, _): Scalar<Popc64, ulong, uint>(ref d); break;
            case ("clz", 32, _): Scalar<Clz32, uint, uint>(ref d); break;
            case ("clz", 64, _): Scalar<Clz64, ulong, uint>(ref d); break;
            case ("brev", 32, _): Scalar<Brev32, uint, uint>(ref d); break;
            case ("brev", 64, _): Scalar<Brev64, ulong, ulong>(ref d); break;
            case ("bfind", 32, false) when shift: Scalar<BfindShiftU32, uint, uint>(ref d); break;
            case ("bfind", 32, true) when shift: Scalar<BfindShiftS32, int, uint>(ref d); break;
            case ("bfind", 64, false) when shift: Scalar<BfindShiftU64, ulong, uint>(ref d); break;
            case ("bfind", 64, true) when shift: Scalar<BfindShiftS64, long, uint>(ref d); break;
            case ("bfind", 32, false): Scalar<BfindU32, uint, uint>(ref d); break;
            case ("bfind", 32, true): Scalar<BfindS32, int, uint>(ref d); break;
            case ("bfind", 64, false): Scalar<BfindU64, ulong, uint>(ref d); break;
            case ("bfind", 64, true): Scalar<BfindS64, long, uint>(ref d); break;
            default: throw Unsupported("not supported for this type");
        }
    }

    private void DecodeExtract(ref Instruction d, Form form)
    {
        PtxType type = form.TakeType();
        PlaceMixed(ref d, type, type, PtxType.U32, PtxType.U32);
        switch (type.Bits, type.IsSigned)
        {
            case (32, false): Scalar<BfeU32, uint, uint, uint, uint>(ref d); break;
            case (32, true): Scalar<BfeS32, uint, uint, uint, uint>(ref d); break;
            case (64, false): Scalar<BfeU64, ulong, uint, uint, ulong>(ref d); break;
            default: Scalar<BfeS64, ulong, uint, uint, ulong>(ref d); break;
        }
    }

    private void DecodeSad(ref Instruction d, Form form)
    {
        PtxType type = form.TakeType();
        Place(ref d, type, 3);
        switch (type.Kind, type.Bits)
        {
            case ('s', 32): Scalar<Sad<int, uint>, int, int, uint, uint>(ref d); break;
            case ('u', 32): Scalar<Sad<uint, uint>, uint, uint, uint, uint>(ref d); break;
            case ('s', 64): Scalar<Sad<long, ulong>, long, long, ulong, ulong>(ref d); break;
            case ('u', 64): Scalar<Sad<ulong, ulong>, ulong, ulong, ulong, ulong>(ref d); break;
            default: throw Unsupported("not supported for this type");
        }
    }

    // ---- cvt ---------------------------------------------------------------------------------------------------------------------------

    private void DecodeConvert(ref Instruction d, Form form)
    {
        string? mode = form.TakeOneOf("rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi");
        bool relu = form.Take("relu"), ftz = form.Take("ftz"), sat = form.Take("sat");
        PtxType to = form.TakeType(), from = form.TakeType();
        Rounding rounding = mode switch
        {
            "rz" or "rzi" => Rounding.Zero, "rm" or "rmi" => Rounding.Down, "rp" or "rpi" => Rounding.Up, "rna" => Rounding.NearestAway, _ => Rounding.Nearest,
        };
        bool toInteger = mode is "rni" or "rzi" or "rmi" or "rpi";
        if (to.Lanes == 2)
        {
            if (from != F32 || ftz || sat) throw Unsupported("this conversion to a pair is not supported");
            PlaceMixed(ref d, PtxType.B32, F32, F32);
            d.Immediate = Conversions.Specification(to with { Lanes = 1 }, F32, rounding, false, false, false);
            d.Flags = relu ? 4 : 0;
            d.Full = d.Partial = &Conversions.PackPair;
            if (to.Kind == 'h' && rounding == Rounding.Nearest && !relu) Binary<Bf16PairFromF32, uint>(ref d);
            return;
        }
        if (relu || from.Lanes == 2) throw Unsupported("this conversion is not supported");
        if (rounding == Rounding.NearestAway && to.Kind != 't') throw Unsupported(".rna is for tf32 only");
        Operands(2);
        PtxOperand source = _current.Operands[1], target = _current.Operands[0];
        if (target.Kind != OperandKind.Register || target.Register!.IsPredicate || target.Register.Constant is not null) throw Unsupported("the destination must be a register");
        d.X[0] = target.Register.Slot;
        bool isWideSource = source.Kind == OperandKind.Register ? source.Register!.IsWide : from.TotalBits == 64;
        d.X[4] = Source(source, isWideSource ? PtxType.B64 : PtxType.B32);
        d.Immediate = Conversions.Specification(to, from, rounding, toInteger, ftz, sat);
        d.Flags = (isWideSource ? 1 : 0) | (target.Register.IsWide ? 2 : 0);
        d.Full = d.Partial = &Conversions.General;
        bool isExact = !ftz && !sat && target.Register.IsWide == (to.TotalBits == 64) && isWideSource == (from.TotalBits == 64);
        if (!isExact) return;
        switch (to.ToString(), from.ToString(), rounding)
        {
            case ("s64" or "u64", "s32", _): d.Full = d.Partial = &Conversions.S64FromS32; break;
            case ("s64" or "u64", "u32", _): d.Full = d.Partial = &Conversions.U64FromU32; break;
            case ("u32" or "s32", "u64" or "s64", _): d.Full = d.Partial = &Conversions.U32FromU64; break;
            case ("u16", "u32", _) when target.Register.Type.Bits == 16: Unary<LowHalf, uint>(ref d); break;
            case ("u32" or "s32", "u16", _) or ("u32" or "s32", "u32" or "s32", _): Unary<Mov<uint>, uint>(ref d); break;
            case ("u64" or "s64", "u64" or "s64", _): Unary<Mov<ulong>, ulong>(ref d); break;
            case ("f32", "u32", Rounding.Nearest): Unary<F32FromU32, uint>(ref d); break;
            case ("f32", "f16", _) when !toInteger: Unary<F32FromF16, uint>(ref d); break;
            case ("f32", "s32", Rounding.Nearest): Unary<F32FromS32, int>(ref d); break;
            case ("f32", "bf16", _) when !toInteger: Unary<F32FromBf16, uint>(ref d); break;
            case ("bf16", "f32", Rounding.Nearest) when !toInteger: Unary<Bf16FromF32, uint>(ref d); break;
        }
    }
}
