// One room, and longer than others: every arithmetic form of PTX and the operation it decodes to, as one table.
using ZEngine.Emulator.Execution;
using ZEngine.Emulator.Ptx;

namespace ZEngine.Emulator.Decode;

internal sealed unsafe partial class Decoder
{
    // ---- Handlers by kind ----------------------------------------------------------------------------------------------------------------

    private static void Unary<TOp, T>(ref Instruction d) where TOp : struct, IUnary<T> where T : unmanaged
    {
        d.Full = &LaneOps.Unary<TOp, T>;
        d.Partial = &LaneOps.UnaryPartial<TOp, T>;
    }

    private static void Binary<TOp, T>(ref Instruction d) where TOp : struct, IBinary<T> where T : unmanaged
    {
        d.Full = &LaneOps.Binary<TOp, T>;
        d.Partial = &LaneOps.BinaryPartial<TOp, T>;
    }

    private static void Ternary<TOp, T>(ref Instruction d) where TOp : struct, ITernary<T> where T : unmanaged
    {
        d.Full = &LaneOps.Ternary<TOp, T>;
        d.Partial = &LaneOps.TernaryPartial<TOp, T>;
    }

    private static void Scalar<TOp, TA, TD>(ref Instruction d) where TOp : struct, IScalar<TA, TD> where TA : unmanaged where TD : unmanaged =>
        d.Full = d.Partial = &LaneOps.Scalar<TOp, TA, TD>;

    private static void Scalar<TOp, TA, TB, TD>(ref Instruction d)
        where TOp : struct, IScalar<TA, TB, TD> where TA : unmanaged where TB : unmanaged where TD : unmanaged =>
        d.Full = d.Partial = &LaneOps.Scalar<TOp, TA, TB, TD>;

    private static void Scalar<TOp, TA, TB, TC, TD>(ref Instruction d)
        where TOp : struct, IScalar<TA, TB, TC, TD> where TA : unmanaged where TB : unmanaged where TC : unmanaged where TD : unmanaged =>
        d.Full = d.Partial = &LaneOps.Scalar<TOp, TA, TB, TC, TD>;

    private static void UnaryF32<TOp>(ref Instruction d, bool ftz, bool sat = false) where TOp : struct, IUnary<float>
    {
        if (ftz && sat) Unary<SatUnary<FtzUnary<TOp>>, float>(ref d);
        else if (ftz) Unary<FtzUnary<TOp>, float>(ref d);
        else if (sat) Unary<SatUnary<TOp>, float>(ref d);
        else Unary<TOp, float>(ref d);
    }

    private static void BinaryF32<TOp>(ref Instruction d, bool ftz, bool sat = false) where TOp : struct, IBinary<float>
    {
        if (ftz && sat) Binary<SatBinary<FtzBinary<TOp>>, float>(ref d);
        else if (ftz) Binary<FtzBinary<TOp>, float>(ref d);
        else if (sat) Binary<SatBinary<TOp>, float>(ref d);
        else Binary<TOp, float>(ref d);
    }

    private static void TernaryF32<TOp>(ref Instruction d, bool ftz, bool sat) where TOp : struct, ITernary<float>
    {
        if (ftz && sat) Ternary<SatTernary<FtzTernary<TOp>>, float>(ref d);
        else if (ftz) Ternary<FtzTernary<TOp>, float>(ref d);
        else if (sat) Ternary<SatTernary<TOp>, float>(ref d);
        else Ternary<TOp, float>(ref d);
    }

    private static void ScalarF32<TOp>(ref Instruction d, bool ftz) where TOp : struct, IScalar<float, float>
    {
        if (ftz) Scalar<FtzScalar<TOp>, float, float>(ref d);
        else Scalar<TOp, float, float>(ref d);
    }

    private static void DirectedF32<TOp>(ref Instruction d, bool ftz) where TOp : struct, IScalar<float, float, float>
    {
        if (ftz) Scalar<FtzScalar2<TOp>, float, float, float>(ref d);
        else Scalar<TOp, float, float, float>(ref d);
    }

    private static void DirectedFma<TOp>(ref Instruction d, bool ftz) where TOp : struct, IScalar<float, float, float, float>
    {
        if (ftz) Scalar<FtzScalar3<TOp>, float, float, float, float>(ref d);
        else Scalar<TOp, float, float, float, float>(ref d);
    }

    /// <summary>Puts operands into their places, all of one type: the destination and then so many sources.</summary>
    private void Place(ref Instruction d, PtxType type, int sources)
    {
        Operands(sources + 1);
        d.X[0] = Destination(_current.Operands[0], type);
        if (d.X[0] < 0) throw Unsupported("the result must go to a register");
        for (int k = 0; k < sources; k++) d.X[Instruction.Sources + k] = Source(_current.Operands[k + 1], type);
    }

    private void PlaceMixed(ref Instruction d, PtxType destination, params ReadOnlySpan<PtxType> sources)
    {
        Operands(sources.Length + 1);
        d.X[0] = Destination(_current.Operands[0], destination);
        if (d.X[0] < 0) throw Unsupported("the result must go to a register");
        for (int k = 0; k < sources.Length; k++) d.X[Instruction.Sources + k] = Source(_current.Operands[k + 1], sources[k]);
    }

    private static InstructionClass ClassOf(PtxType type) =>
        type is { Kind: 'f', Bits: 64 } ? InstructionClass.Double : type.IsFloat ? InstructionClass.Float : InstructionClass.Integer;

    // ---- Opcodes -----------------------------------------------------------------------------------------------------------------------

    private InstructionClass DecodeArithmetic(ref Instruction d, Form form)
    {
        string opcode = _current.Opcode;
        switch (opcode)
        {
            case "mov": return DecodeMove(ref d, form);
            case "setp": return DecodeSetp(ref d, form);
            case "selp": return DecodeSelp(ref d, form);
            case "addc" or "subc" or "madc":
            case "add" or "sub" or "mad" when Array.IndexOf(_current.Modifiers, "cc") >= 0: return DecodeCarry(ref d, form, opcode);
            case "add" or "sub" or "mul" or "mad" or "fma" or "div": return DecodeBasic(ref d, form, opcode);
            case "min" or "max": return DecodeMinMax(ref d, form, opcode == "min");
            case "neg" or "abs": return DecodeSign(ref d, form, opcode == "neg");
            case "rcp" or "sqrt" or "rsqrt" or "sin" or "cos" or "lg2" or "ex2" or "tanh": return DecodeFunction(ref d, form, opcode);
            default:
                DecodeInteger(ref d, form, opcode);
                return InstructionClass.Integer;
        }
    }

    private InstructionClass DecodeBasic(ref Instruction d, Form form, string opcode)
    {
        string? width = form.TakeOneOf("lo", "hi", "wide");
        string? rounding = form.TakeOneOf("rn", "rz", "rm", "rp", "approx", "full");
        bool ftz = form.Take("ftz"), sat = form.Take("sat"), relu = form.Take("relu");
        if (form.Take("noftz")) throw Unsupported(".noftz is not supported");
        PtxType type = form.TakeType();
        if (type.IsInteger)
        {
            if (rounding is not null || ftz || sat || relu) throw Unsupported("rounding modes do not apply to integers");
            DecodeIntegerBasic(ref d, opcode, width, type);
            return InstructionClass.Integer;
        }
        if (width is not null || relu && opcode != "fma") throw Unsupported("unknown form");
        Place(ref d, type, opcode is "mad" or "fma" ? 3 : 2);
        if (type.Bits == 16)
        {
            if (ftz || sat || rounding is not (null or "rn")) throw Unsupported("this form of a 16-bit operation is not supported");
            if (type.Kind == 'h') DecodeHalf<BFloat>(ref d, opcode, type.Lanes == 2, relu);
            else DecodeHalf<Float16>(ref d, opcode, type.Lanes == 2, relu);
        }
        else if (type.Bits == 64)
        {
            if (ftz || sat || relu || rounding is not (null or "rn")) throw Unsupported("double precision is supported with .rn only");
            switch (opcode)
            {
                case "add": Binary<Add<double>, double>(ref d); break;
                case "sub": Binary<Sub<double>, double>(ref d); break;
                case "mul": Binary<Mul<double>, double>(ref d); break;
                case "div": Binary<DivF64, double>(ref d); break;
                default: Ternary<FmaF64, double>(ref d); break;
            }
        }
        else
        {
            if (relu) throw Unsupported(".relu is not supported for f32");
            if (rounding is "rz" or "rm" or "rp") DecodeDirected(ref d, opcode, rounding, ftz, sat);
            else DecodeSingle(ref d, opcode, ftz, sat);
        }
        return opcode == "div" && rounding is "approx" or "full" ? InstructionClass.Transcendental : ClassOf(type);
    }

    private int _carrySlot = -1;

    private InstructionClass DecodeCarry(ref Instruction d, Form form, string opcode)
    {
        string? width = opcode is "mad" or "madc" ? form.TakeOneOf("lo", "hi") ?? throw Unsupported(".lo or .hi is missing") : null;
        bool writes = form.Take("cc");
        PtxType type = form.TakeType();
        if (!type.IsInteger || type.Bits < 32) throw Unsupported("carries are for 32- and 64-bit integers");
        Place(ref d, type, width is null ? 2 : 3);
        if (_carrySlot < 0) _carrySlot = TakeSlot(4);
        d.X[7] = _carrySlot;
        d.Size = type.Bytes;
        d.Flags = (opcode[..3], width) switch { ("add", _) => CarryOps.Add, ("sub", _) => CarryOps.Subtract, (_, "lo") => CarryOps.MadLow, _ => CarryOps.MadHigh }
            | (opcode.EndsWith('c') ? CarryOps.ReadsCarry : 0) | (writes ? CarryOps.WritesCarry : 0) | (type.IsSigned ? CarryOps.Signed : 0);
        d.Full = d.Partial = &CarryOps.Run;
        return InstructionClass.Integer;
    }

    private static void DecodeSingle(ref Instruction d, string opcode, bool ftz, bool sat)
    {
        switch (opcode)
        {
            case "add": BinaryF32<AddF32>(ref d, ftz, sat); break;
            case "sub": BinaryF32<SubF32>(ref d, ftz, sat); break;
            case "mul": BinaryF32<MulF32>(ref d, ftz, sat); break;
            case "div": BinaryF32<DivF32>(ref d, ftz, sat); break;
            default: TernaryF32<FmaF32>(ref d, ftz, sat); break;
        }
    }

    private void DecodeDirected(ref Instruction d, string opcode, string rounding, bool ftz, bool sat)
    {
        if (sat) throw Unsupported(".sat with directed rounding is not supported");
        switch (opcode, rounding)
        {
            case ("add", "rz"): DirectedF32<AddDirected<ToZero>>(ref d, ftz); break;
            case ("add", "rm"): DirectedF32<AddDirected<ToMinus>>(ref d, ftz); break;
            case ("add", "rp"): DirectedF32<AddDirected<ToPlus>>(ref d, ftz); break;
            case ("sub", "rz"): DirectedF32<SubDirected<ToZero>>(ref d, ftz); break;
            case ("sub", "rm"): DirectedF32<SubDirected<ToMinus>>(ref d, ftz); break;
            case ("sub", "rp"): DirectedF32<SubDirected<ToPlus>>(ref d, ftz); break;
            case ("mul", "rz"): DirectedF32<MulDirected<ToZero>>(ref d, ftz); break;
            case ("mul", "rm"): DirectedF32<MulDirected<ToMinus>>(ref d, ftz); break;
            case ("mul", "rp"): DirectedF32<MulDirected<ToPlus>>(ref d, ftz); break;
            case ("fma" or "mad", "rz"): DirectedFma<FmaDirected<ToZero>>(ref d, ftz); break;
            case ("fma" or "mad", "rm"): DirectedFma<FmaDirected<ToMinus>>(ref d, ftz); break;
            case ("fma" or "mad", "rp"): DirectedFma<FmaDirected<ToPlus>>(ref d, ftz); break;
            default: throw Unsupported($"rounding .{rounding} is not supported here");
        }
    }

    private void DecodeHalf<F>(ref Instruction d, string opcode, bool isPair, bool relu) where F : struct, IHalfFormat
    {
        switch (opcode, isPair)
        {
            case ("add", false): Scalar<HalfAdd<F>, ushort, ushort, ushort>(ref d); break;
            case ("sub", false): Scalar<HalfSub<F>, ushort, ushort, ushort>(ref d); break;
            case ("mul", false): Scalar<HalfMul<F>, ushort, ushort, ushort>(ref d); break;
            case ("fma", false) when relu: Scalar<HalfFmaRelu<F>, ushort, ushort, ushort, ushort>(ref d); break;
            case ("fma", false): Scalar<HalfFma<F>, ushort, ushort, ushort, ushort>(ref d); break;
            case ("add", true): Scalar<Both2<HalfAdd<F>>, uint, uint, uint>(ref d); break;
            case ("sub", true): Scalar<Both2<HalfSub<F>>, uint, uint, uint>(ref d); break;
            case ("mul", true): Scalar<Both2<HalfMul<F>>, uint, uint, uint>(ref d); break;
            case ("fma", true) when relu: Scalar<Both3<HalfFmaRelu<F>>, uint, uint, uint, uint>(ref d); break;
            case ("fma", true): Scalar<Both3<HalfFma<F>>, uint, uint, uint, uint>(ref d); break;
            default: throw Unsupported("not supported for 16-bit floats");
        }
    }

    private void DecodeIntegerBasic(ref Instruction d, string opcode, string? width, PtxType type)
    {
        if (opcode == "fma" || opcode is "mul" or "mad" && width is null || opcode is "add" or "sub" or "div" && width is not null) throw Unsupported("unknown form");
        PtxType wide = new(type.Kind, type.Bits * 2);
        if (width == "wide")
        {
            if (opcode == "mul") PlaceMixed(ref d, wide, type, type);
            else PlaceMixed(ref d, wide, type, type, wide);
        }
        else
        {
            Place(ref d, type, opcode == "mad" ? 3 : 2);
        }
        switch (opcode, width, type.Bits, type.IsSigned)
        {
            case ("add", _, 16, _): Scalar<Add16, ushort, ushort, ushort>(ref d); break;
            case ("add", _, 32, _): Binary<Add<uint>, uint>(ref d); break;
            case ("add", _, 64, _): Binary<Add<ulong>, ulong>(ref d); break;
            case ("sub", _, 16, _): Scalar<Sub16, ushort, ushort, ushort>(ref d); break;
            case ("sub", _, 32, _): Binary<Sub<uint>, uint>(ref d); break;
            case ("sub", _, 64, _): Binary<Sub<ulong>, ulong>(ref d); break;
            case ("mul", "lo", 16, _): Scalar<Mul16, ushort, ushort, ushort>(ref d); break;
            case ("mul", "lo", 32, _): Binary<Mul<uint>, uint>(ref d); break;
            case ("mul", "lo", 64, _): Binary<Mul<ulong>, ulong>(ref d); break;
            case ("mul", "hi", 16, true): Scalar<MulHi<short, int>, short, short, short>(ref d); break;
            case ("mul", "hi", 16, false): Scalar<MulHi<ushort, uint>, ushort, ushort, ushort>(ref d); break;
            case ("mul", "hi", 32, true): Scalar<MulHi<int, long>, int, int, int>(ref d); break;
            case ("mul", "hi", 32, false): Scalar<MulHi<uint, ulong>, uint, uint, uint>(ref d); break;
            case ("mul", "hi", 64, true): Scalar<MulHi<long, Int128>, long, long, long>(ref d); break;
            case ("mul", "hi", 64, false): Scalar<MulHi<ulong, UInt128>, ulong, ulong, ulong>(ref d); break;
            case ("mul", "wide", 16, true): Scalar<MulWide<short, int>, short, short, int>(ref d); break;
            case ("mul", "wide", 16, false): Scalar<MulWide<ushort, uint>, ushort, ushort, uint>(ref d); break;
            case ("mul", "wide", 32, true): d.Full = d.Partial = &WideOps.MultiplyS32; break;
            case ("mul", "wide", 32, false): d.Full = d.Partial = &WideOps.MultiplyU32; break;
            case ("mad", "lo", 16, _): Scalar<Mad16, ushort, ushort, ushort, ushort>(ref d); break;
            case ("mad", "lo", 32, _): Ternary<Mad<uint>, uint>(ref d); break;
            case ("mad", "lo", 64, _): Ternary<Mad<ulong>, ulong>(ref d); break;
            case ("mad", "hi", 32, true): Scalar<MadHi<int, long>, int, int, int, int>(ref d); break;
            case ("mad", "hi", 32, false): Scalar<MadHi<uint, ulong>, uint, uint, uint, uint>(ref d); break;
            case ("mad", "hi", 64, true): Scalar<MadHi<long, Int128>, long, long, long, long>(ref d); break;
            case ("mad", "hi", 64, false): Scalar<MadHi<ulong, UInt128>, ulong, ulong, ulong, ulong>(ref d); break;
            case ("mad", "wide", 16, true): Scalar<MadWide<short, int>, short, short, int, int>(ref d); break;
            case ("mad", "wide", 16, false): Scalar<MadWide<ushort, uint>, ushort, ushort, uint, uint>(ref d); break;
            case ("mad", "wide", 32, true): Scalar<MadWide<int, long>, int, int, long, long>(ref d); break;
            case ("mad", "wide", 32, false): Scalar<MadWide<uint, ulong>, uint, uint, ulong, ulong>(ref d); break;
            case ("div", _, 16, true): Scalar<DivInt<short>, short, short, short>(ref d); break;
            case ("div", _, 16, false): Scalar<DivInt<ushort>, ushort, ushort, ushort>(ref d); break;
            case ("div", _, 32, true): Scalar<DivInt<int>, int, int, int>(ref d); break;
            case ("div", _, 32, false): Scalar<DivInt<uint>, uint, uint, uint>(ref d); break;
            case ("div", _, 64, true): Scalar<DivInt<long>, long, long, long>(ref d); break;
            case ("div", _, 64, false): Scalar<DivInt<ulong>, ulong, ulong, ulong>(ref d); break;
            default: throw Unsupported("not supported for this type");
        }
    }

    private InstructionClass DecodeMinMax(ref Instruction d, Form form, bool isMin)
    {
        bool ftz = form.Take("ftz"), nan = form.Take("NaN");
        PtxType type = form.TakeType();
        Place(ref d, type, 2);
        switch (type.Kind, type.Bits)
        {
            case ('s', 16):
                if (isMin) Scalar<MinInt<short>, short, short, short>(ref d);
                else Scalar<MaxInt<short>, short, short, short>(ref d);
                break;
            case ('u', 16):
                if (isMin) Scalar<MinInt<ushort>, ushort, ushort, ushort>(ref d);
                else Scalar<MaxInt<ushort>, ushort, ushort, ushort>(ref d);
                break;
            case ('s', 32):
                if (isMin) Binary<Min<int>, int>(ref d);
                else Binary<Max<int>, int>(ref d);
                break;
            case ('u', 32):
                if (isMin) Binary<Min<uint>, uint>(ref d);
                else Binary<Max<uint>, uint>(ref d);
                break;
            case ('s', 64):
                if (isMin) Binary<Min<long>, long>(ref d);
                else Binary<Max<long>, long>(ref d);
                break;
            case ('u', 64):
                if (isMin) Binary<Min<ulong>, ulong>(ref d);
                else Binary<Max<ulong>, ulong>(ref d);
                break;
            case ('f', 32):
                if (isMin && nan) BinaryF32<MinNanF32>(ref d, ftz);
                else if (isMin) BinaryF32<MinF32>(ref d, ftz);
                else if (nan) BinaryF32<MaxNanF32>(ref d, ftz);
                else BinaryF32<MaxF32>(ref d, ftz);
                break;
            case ('f', 64) when !ftz && !nan:
                if (isMin) Binary<MinF64, double>(ref d);
                else Binary<MaxF64, double>(ref d);
                break;
            case ('f', 16) when !ftz: DecodeHalfMinMax<Float16>(ref d, isMin, nan, type.Lanes == 2); break;
            case ('h', 16) when !ftz: DecodeHalfMinMax<BFloat>(ref d, isMin, nan, type.Lanes == 2); break;
            default: throw Unsupported("not supported for this type");
        }
        return ClassOf(type);
    }

    private static void DecodeHalfMinMax<F>(ref Instruction d, bool isMin, bool nan, bool isPair) where F : struct, IHalfFormat
    {
        switch (isMin, nan, isPair)
        {
            case (true, false, false): Scalar<HalfMin<F>, ushort, ushort, ushort>(ref d); break;
            case (true, true, false): Scalar<HalfMinNan<F>, ushort, ushort, ushort>(ref d); break;
            case (false, false, false): Scalar<HalfMax<F>, ushort, ushort, ushort>(ref d); break;
            case (false, true, false): Scalar<HalfMaxNan<F>, ushort, ushort, ushort>(ref d); break;
            case (true, false, true): Scalar<Both2<HalfMin<F>>, uint, uint, uint>(ref d); break;
            case (true, true, true): Scalar<Both2<HalfMinNan<F>>, uint, uint, uint>(ref d); break;
            case (false, false, true): Scalar<Both2<HalfMax<F>>, uint, uint, uint>(ref d); break;
            default: Scalar<Both2<HalfMaxNan<F>>, uint, uint, uint>(ref d); break;
        }
    }

    private InstructionClass DecodeSign(ref Instruction d, Form form, bool isNeg)
    {
        bool ftz = form.Take("ftz");
        PtxType type = form.TakeType();
        Place(ref d, type, 1);
        switch (type.Kind, type.Bits, type.Lanes)
        {
            case ('s', 16, _) when isNeg: Scalar<Neg16, ushort, ushort>(ref d); break;
            case ('s', 32, _):
                if (isNeg) Unary<Neg<int>, int>(ref d);
                else Unary<Abs<int>, int>(ref d);
                break;
            case ('s', 64, _):
                if (isNeg) Unary<Neg<long>, long>(ref d);
                else Unary<Abs<long>, long>(ref d);
                break;
            case ('f', 32, _) when ftz:
                if (isNeg) Unary<FtzUnary<NegAsFloat>, float>(ref d);
                else Unary<FtzUnary<AbsAsFloat>, float>(ref d);
                break;
            case ('f', 32, _):
                if (isNeg) Unary<NegF32, uint>(ref d);
                else Unary<AbsF32, uint>(ref d);
                break;
            case ('f', 64, _) when !ftz:
                if (isNeg) Unary<NegF64, ulong>(ref d);
                else Unary<AbsF64, ulong>(ref d);
                break;
            case ('f' or 'h', 16, 1) when !ftz:
                if (isNeg) Scalar<HalfNeg, ushort, ushort>(ref d);
                else Scalar<HalfAbs, ushort, ushort>(ref d);
                break;
            case ('f' or 'h', 16, 2) when !ftz:
                if (isNeg) Scalar<Both1<HalfNeg>, uint, uint>(ref d);
                else Scalar<Both1<HalfAbs>, uint, uint>(ref d);
                break;
            default: throw Unsupported("not supported for this type");
        }
        return ClassOf(type);
    }

    private InstructionClass DecodeFunction(ref Instruction d, Form form, string opcode)
    {
        string? rounding = form.TakeOneOf("approx", "rn");
        bool ftz = form.Take("ftz");
        PtxType type = form.TakeType();
        Place(ref d, type, 1);
        switch (opcode, rounding, type.ToString())
        {
            case ("rcp", _, "f32"): UnaryF32<RcpF32>(ref d, ftz); break;
            case ("sqrt", _, "f32"): UnaryF32<SqrtF32>(ref d, ftz); break;
            case ("rsqrt", "approx", "f32"): UnaryF32<RsqrtF32>(ref d, ftz); break;
            case ("ex2", "approx", "f32"): UnaryF32<Ex2F32>(ref d, ftz); break;
            case ("lg2", "approx", "f32"): UnaryF32<Lg2F32>(ref d, ftz); break;
            case ("sin", "approx", "f32"): ScalarF32<SinF32>(ref d, ftz); break;
            case ("cos", "approx", "f32"): ScalarF32<CosF32>(ref d, ftz); break;
            case ("tanh", "approx", "f32"): ScalarF32<TanhF32>(ref d, ftz); break;
            case ("rcp", "rn", "f64"): Unary<RcpF64, double>(ref d); break;
            case ("sqrt", "rn", "f64"): Unary<SqrtF64, double>(ref d); break;
            case ("rcp", "approx", "f64") when ftz: Scalar<RcpApproxF64, double, double>(ref d); break;
            case ("rsqrt", "approx", "f64") when ftz: Scalar<RsqrtApproxFtzF64, double, double>(ref d); break;
            case ("rsqrt", "approx", "f64"): Scalar<RsqrtApproxF64, double, double>(ref d); break;
            default: throw Unsupported("this form is not supported");
        }
        if (_options.JitterApproximations && rounding == "approx" && type.Bits == 32) Jitter.Wrap(ref d, opcode);
        return rounding == "rn" ? ClassOf(type) : InstructionClass.Transcendental;
    }

    // ---- Comparisons, selection, moves --------------------------------------------------------------------------------------------------

    private InstructionClass DecodeSetp(ref Instruction d, Form form)
    {
        string compare = form.TakeOneOf("eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan")
            ?? throw Unsupported("unknown comparison");
        string? combine = form.TakeOneOf("and", "or", "xor");
        bool ftz = form.Take("ftz");
        PtxType type = form.TakeType();
        Operands(combine is null ? 3 : 4);
        d.X[0] = Destination(_current.Operands[0], PtxType.Pred);
        if (_current.Operands[0].Second is { } second) d.X[1] = Destination(second, PtxType.Pred);
        d.X[4] = Source(_current.Operands[1], type);
        d.X[5] = Source(_current.Operands[2], type);
        if (combine is not null)
        {
            PtxOperand c = _current.Operands[3];
            d.Flags = combine switch { "and" => LaneOps.CombineAnd, "or" => LaneOps.CombineOr, _ => LaneOps.CombineXor };
            if (c.Negated) d.Flags |= LaneOps.CombineNegated;
            d.X[6] = PredicateSource(c);
        }
        switch (type.Kind, type.Bits, type.Lanes)
        {
            case ('b' or 'u', 32, _): IntegerCompare<uint>(ref d, compare); break;
            case ('s', 32, _): IntegerCompare<int>(ref d, compare); break;
            case ('b' or 'u', 64, _): IntegerCompare<ulong>(ref d, compare); break;
            case ('s', 64, _): IntegerCompare<long>(ref d, compare); break;
            case ('b' or 'u', 16, _): NarrowCompare<ushort>(ref d, compare); break;
            case ('s', 16, _): NarrowCompare<short>(ref d, compare); break;
            case ('f', 32, _): FloatCompare<float>(ref d, compare, ftz); break;
            case ('f', 64, _): FloatCompare<double>(ref d, compare, false); break;
            case ('f', 16, 1): HalfCompare<Float16>(ref d, compare); break;
            case ('h', 16, 1): HalfCompare<BFloat>(ref d, compare); break;
            default: throw Unsupported("not supported for this type");
        }
        return ClassOf(type);
    }

    private int PredicateSource(PtxOperand operand) =>
        operand is { Kind: OperandKind.Register, Register.IsPredicate: true } ? operand.Register.Slot : throw Unsupported("a predicate is needed here");

    private static void Compare<TOp, T>(ref Instruction d) where TOp : struct, ICompare<T> where T : unmanaged => d.Full = d.Partial = &LaneOps.SetPredicate<TOp, T>;

    private void IntegerCompare<T>(ref Instruction d, string compare) where T : unmanaged
    {
        switch (compare)
        {
            case "eq": Compare<Eq<T>, T>(ref d); break;
            case "ne": Compare<Ne<T>, T>(ref d); break;
            case "lt" or "lo": Compare<Lt<T>, T>(ref d); break;
            case "le" or "ls": Compare<Le<T>, T>(ref d); break;
            case "gt" or "hi": Compare<Gt<T>, T>(ref d); break;
            case "ge" or "hs": Compare<Ge<T>, T>(ref d); break;
            default: throw Unsupported($"comparison .{compare} is not for integers");
        }
    }

    private void NarrowCompare<T>(ref Instruction d, string compare) where T : unmanaged, System.Numerics.INumber<T>
    {
        d.Full = d.Partial = compare switch
        {
            "eq" => &LaneOps.SetPredicateScalar<Eq16, ushort>,
            "ne" => &LaneOps.SetPredicateScalar<Ne16, ushort>,
            "lt" or "lo" => &LaneOps.SetPredicateScalar<Lt16<T>, T>,
            "le" or "ls" => &LaneOps.SetPredicateScalar<Le16<T>, T>,
            "gt" or "hi" => &LaneOps.SetPredicateScalar<Gt16<T>, T>,
            "ge" or "hs" => &LaneOps.SetPredicateScalar<Ge16<T>, T>,
            _ => throw Unsupported($"comparison .{compare} is not for integers"),
        };
    }

    private void FloatCompare<T>(ref Instruction d, string compare, bool ftz) where T : unmanaged
    {
        switch (compare)
        {
            case "eq": FloatCompare<Eq<T>, Eq<float>, T>(ref d, ftz); break;
            case "ne": FloatCompare<NeOrdered<T>, NeOrdered<float>, T>(ref d, ftz); break;
            case "lt": FloatCompare<Lt<T>, Lt<float>, T>(ref d, ftz); break;
            case "le": FloatCompare<Le<T>, Le<float>, T>(ref d, ftz); break;
            case "gt": FloatCompare<Gt<T>, Gt<float>, T>(ref d, ftz); break;
            case "ge": FloatCompare<Ge<T>, Ge<float>, T>(ref d, ftz); break;
            case "equ": FloatCompare<EqUnordered<T>, EqUnordered<float>, T>(ref d, ftz); break;
            case "neu": FloatCompare<Ne<T>, Ne<float>, T>(ref d, ftz); break;
            case "ltu": FloatCompare<LtUnordered<T>, LtUnordered<float>, T>(ref d, ftz); break;
            case "leu": FloatCompare<LeUnordered<T>, LeUnordered<float>, T>(ref d, ftz); break;
            case "gtu": FloatCompare<GtUnordered<T>, GtUnordered<float>, T>(ref d, ftz); break;
            case "geu": FloatCompare<GeUnordered<T>, GeUnordered<float>, T>(ref d, ftz); break;
            case "num": FloatCompare<IsNumber<T>, IsNumber<float>, T>(ref d, ftz); break;
            case "nan": FloatCompare<IsNan<T>, IsNan<float>, T>(ref d, ftz); break;
            default: throw Unsupported($"comparison .{compare} is not for floats");
        }
    }

    private static void FloatCompare<TOp, TSingle, T>(ref Instruction d, bool ftz) where TOp : struct, ICompare<T> where TSingle : struct, ICompare<float> where T : unmanaged
    {
        if (ftz) Compare<FtzCompare<TSingle>, float>(ref d);
        else Compare<TOp, T>(ref d);
    }

    private void HalfCompare<F>(ref Instruction d, string compare) where F : struct, IHalfFormat
    {
        d.Full = d.Partial = compare switch
        {
            "eq" => &LaneOps.SetPredicateScalar<HalfEq<F>, ushort>,
            "ne" => &LaneOps.SetPredicateScalar<HalfNe<F>, ushort>,
            "lt" => &LaneOps.SetPredicateScalar<HalfLt<F>, ushort>,
            "le" => &LaneOps.SetPredicateScalar<HalfLe<F>, ushort>,
            "gt" => &LaneOps.SetPredicateScalar<HalfGt<F>, ushort>,
            "ge" => &LaneOps.SetPredicateScalar<HalfGe<F>, ushort>,
            "equ" => &LaneOps.SetPredicateScalar<HalfUnordered<F, HalfEq<F>>, ushort>,
            "neu" => &LaneOps.SetPredicateScalar<HalfUnordered<F, HalfNe<F>>, ushort>,
            "ltu" => &LaneOps.SetPredicateScalar<HalfUnordered<F, HalfLt<F>>, ushort>,
            "leu" => &LaneOps.SetPredicateScalar<HalfUnordered<F, HalfLe<F>>, ushort>,
            "gtu" => &LaneOps.SetPredicateScalar<HalfUnordered<F, HalfGt<F>>, ushort>,
            "geu" => &LaneOps.SetPredicateScalar<HalfUnordered<F, HalfGe<F>>, ushort>,
            _ => throw Unsupported($"comparison .{compare} is not for 16-bit floats"),
        };
    }

    private InstructionClass DecodeSelp(ref Instruction d, Form form)
    {
        PtxType type = form.TakeType();
        PlaceMixed(ref d, type, type, type, PtxType.Pred);
        d.Full = d.Partial = type.TotalBits == 64 ? &Moves.Select64 : &Moves.Select32;
        return InstructionClass.Integer;
    }

    private InstructionClass DecodeMove(ref Instruction d, Form form)
    {
        PtxType type = form.TakeType();
        Operands(2);
        PtxOperand to = _current.Operands[0], from = _current.Operands[1];
        if (type.Kind == 'p')
        {
            d.X[0] = Destination(to, type);
            d.Immediate = from.Kind == OperandKind.Immediate ? from.Value != 0 ? uint.MaxValue : 0 : -1;
            if (from.Kind != OperandKind.Immediate) d.X[4] = PredicateSource(from);
            d.Full = d.Partial = &Moves.Predicate;
        }
        else if (from.Kind == OperandKind.Special && SpecialRegisters.IsClock(from.Name))
        {
            d.X[0] = Destination(to, type);
            d.Size = type.Bytes;
            d.Flags = from.Name.EndsWith("_hi", StringComparison.Ordinal) ? 1 : 0;
            d.Full = d.Partial = &WarpOps.ReadClock;
        }
        else if (to.Kind == OperandKind.Vector)
        {
            int parts = to.Items.Length;
            var part = new PtxType('b', type.TotalBits / parts);
            for (int k = 0; k < parts; k++) d.X[k] = Destination(to.Items[k], part);
            d.X[4] = Source(from, type);
            (d.Count, d.Size, d.Flags) = (parts, part.Bytes, type.TotalBits == 64 ? 1 : 0);
            d.Full = d.Partial = &Moves.Unpack;
        }
        else if (from.Kind == OperandKind.Vector)
        {
            int parts = from.Items.Length;
            var part = new PtxType('b', type.TotalBits / parts);
            d.X[0] = Destination(to, type);
            for (int k = 0; k < parts; k++) d.X[4 + k] = Source(from.Items[k], part);
            (d.Count, d.Size, d.Flags) = (parts, part.Bytes, type.TotalBits == 64 ? 1 : 0);
            d.Full = d.Partial = &Moves.Pack;
            if (parts == 2 && part.Bytes == 2) Binary<PackHalves, uint>(ref d);
        }
        else
        {
            d.X[0] = Destination(to, type);
            d.X[4] = Source(from, type);
            if (type.TotalBits == 64) Unary<Mov<ulong>, ulong>(ref d);
            else Unary<Mov<uint>, uint>(ref d);
        }
        return InstructionClass.Integer;
    }
}
