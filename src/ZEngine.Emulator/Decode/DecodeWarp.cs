using ZEngine.Emulator.Execution;
using ZEngine.Emulator.Ptx;

namespace ZEngine.Emulator.Decode;

/// <summary>Barriers, fences, shuffles, votes and matrix instructions.</summary>
internal sealed unsafe partial class Decoder
{
    private bool DecodeWarp(ref Instruction d, Form form, out InstructionClass kind, out long flops)
    {
        flops = 0;
        kind = InstructionClass.Warp;
        switch (_current.Opcode)
        {
            case "bar" or "barrier":
                DecodeBarrier(ref d, form);
                kind = InstructionClass.Barrier;
                return true;
            case "membar":
                d.Flags = form.TakeOneOf("cta", "gl", "sys") switch { "cta" => 0, "gl" or "sys" => 1, _ => throw Unsupported("unknown scope") };
                d.Full = &WarpOps.Fence;
                kind = InstructionClass.Barrier;
                return true;
            case "fence":
                form.TakeOneOf("sc", "acq_rel");
                d.Flags = form.TakeOneOf("cta", "gpu", "sys", "cluster") switch { "cta" => 0, null => throw Unsupported("unknown scope"), _ => 1 };
                d.Full = &WarpOps.Fence;
                kind = InstructionClass.Barrier;
                return true;
            case "shfl": DecodeShuffle(ref d, form); return true;
            case "vote": DecodeVote(ref d, form); return true;
            case "match": DecodeMatch(ref d, form); return true;
            case "redux": DecodeRedux(ref d, form); return true;
            case "activemask":
                form.TakeType();
                Operands(1);
                d.X[0] = Destination(_current.Operands[0], PtxType.B32);
                d.Full = &WarpOps.ActiveMask;
                return true;
            case "ldmatrix":
                DecodeLoadMatrix(ref d, form);
                kind = InstructionClass.MatrixLoad;
                return true;
            case "mma":
                DecodeMultiply(ref d, form, out flops);
                kind = InstructionClass.Matrix;
                return true;
            default:
                return false;
        }
    }

    private void DecodeBarrier(ref Instruction d, Form form)
    {
        PtxOperand[] operands = _current.Operands;
        if (form.Take("warp"))
        {
            if (!form.Take("sync")) throw Unsupported("unknown form");
            Operands(1);
            d.Kind = InstructionKind.Collective;
            d.MemberMask = Source(operands[0], PtxType.B32);
            d.Full = &WarpOps.WarpBarrier;
            return;
        }
        form.Take("cta");
        d.Kind = InstructionKind.Barrier;
        d.Full = &WarpOps.Nothing;
        BarrierOperation operation = form.TakeOneOf("sync", "arrive", "red") switch
        {
            "sync" => BarrierOperation.Sync,
            "arrive" => BarrierOperation.Arrive,
            "red" => form.TakeOneOf("popc", "and", "or") switch { "popc" => BarrierOperation.RedPopc, "and" => BarrierOperation.RedAnd, "or" => BarrierOperation.RedOr, _ => throw Unsupported("unknown reduction") },
            _ => throw Unsupported("unknown form"),
        };
        form.Take("aligned");
        d.Flags = (int)operation;
        int next = 0;
        if (operation >= BarrierOperation.RedPopc)
        {
            PtxType type = form.TakeType();
            d.X[0] = Destination(operands[next++], type);
            PtxOperand predicate = operands[^1];
            if (predicate.Negated) d.Flags |= BlockBarriers.NegatedPredicate;
            d.X[6] = PredicateSource(predicate);
            operands = operands[..^1];
        }
        if (operands.Length - next is not (1 or 2)) throw Unsupported("unknown operands");
        d.X[4] = Source(operands[next], PtxType.U32);
        if (operands.Length - next == 2) d.X[5] = Source(operands[next + 1], PtxType.U32);
        else if (operation == BarrierOperation.Arrive) throw Unsupported("bar.arrive needs a thread count");
    }

    private void DecodeShuffle(ref Instruction d, Form form)
    {
        if (!form.Take("sync")) throw Unsupported("shuffles without .sync do not exist since sm_70");
        d.Flags = form.TakeOneOf("up", "down", "bfly", "idx") switch { "up" => WarpOps.ShuffleUp, "down" => WarpOps.ShuffleDown, "bfly" => WarpOps.ShuffleXor, "idx" => WarpOps.ShuffleIndex, _ => throw Unsupported("unknown mode") };
        if (form.TakeType().TotalBits != 32) throw Unsupported("only 32 bits");
        Operands(5);
        d.X[0] = Destination(_current.Operands[0], PtxType.B32);
        if (d.X[0] < 0) throw Unsupported("the result must go to a register");
        if (_current.Operands[0].Second is { } predicate) d.X[1] = Destination(predicate, PtxType.Pred);
        for (int k = 0; k < 3; k++) d.X[4 + k] = Source(_current.Operands[k + 1], PtxType.B32);
        d.MemberMask = Source(_current.Operands[4], PtxType.B32);
        d.Kind = InstructionKind.Collective;
        d.Full = &WarpOps.Shuffle;
    }

    private void DecodeVote(ref Instruction d, Form form)
    {
        if (!form.Take("sync")) throw Unsupported("votes without .sync do not exist since sm_70");
        string mode = form.TakeOneOf("all", "any", "uni", "ballot") ?? throw Unsupported("unknown mode");
        PtxType type = form.TakeType();
        Operands(3);
        d.X[0] = Destination(_current.Operands[0], mode == "ballot" ? PtxType.B32 : PtxType.Pred);
        if (type.Kind == 'p' == (mode == "ballot")) throw Unsupported("mode and type do not go together");
        PtxOperand predicate = _current.Operands[1];
        if (predicate.Kind == OperandKind.Immediate) throw Unsupported("the predicate must be a register");
        d.X[4] = PredicateSource(predicate);
        d.Flags = mode switch { "all" => WarpOps.VoteAll, "any" => WarpOps.VoteAny, "uni" => WarpOps.VoteUniform, _ => WarpOps.VoteBallot };
        if (predicate.Negated) d.Flags |= WarpOps.Negated;
        d.MemberMask = Source(_current.Operands[2], PtxType.B32);
        d.Kind = InstructionKind.Collective;
        d.Full = &WarpOps.Vote;
    }

    private void DecodeMatch(ref Instruction d, Form form)
    {
        string mode = form.TakeOneOf("any", "all") ?? throw Unsupported("unknown mode");
        if (!form.Take("sync")) throw Unsupported("unknown form");
        PtxType type = form.TakeType();
        Operands(3);
        d.X[0] = Destination(_current.Operands[0], PtxType.B32);
        if (_current.Operands[0].Second is { } predicate) d.X[1] = Destination(predicate, PtxType.Pred);
        d.X[4] = Source(_current.Operands[1], type);
        (d.Size, d.Flags) = (type.Bytes, mode == "all" ? 1 : 0);
        d.MemberMask = Source(_current.Operands[2], PtxType.B32);
        d.Kind = InstructionKind.Collective;
        d.Full = &WarpOps.Match;
    }

    private void DecodeRedux(ref Instruction d, Form form)
    {
        if (!form.Take("sync")) throw Unsupported("unknown form");
        string operation = form.TakeOneOf("add", "min", "max", "and", "or", "xor") ?? throw Unsupported("unknown operation");
        PtxType type = form.TakeType();
        if (type.TotalBits != 32 || type.IsFloat) throw Unsupported("only 32-bit integers");
        Operands(3);
        d.X[0] = Destination(_current.Operands[0], type);
        d.X[4] = Source(_current.Operands[1], type);
        d.MemberMask = Source(_current.Operands[2], PtxType.B32);
        d.Flags = (operation, type.IsSigned) switch
        {
            ("add", _) => WarpOps.ReduceAdd, ("min", false) => WarpOps.ReduceMinU, ("max", false) => WarpOps.ReduceMaxU, ("min", true) => WarpOps.ReduceMinS,
            ("max", true) => WarpOps.ReduceMaxS, ("and", _) => WarpOps.ReduceAnd, ("or", _) => WarpOps.ReduceOr, _ => WarpOps.ReduceXor,
        };
        d.Kind = InstructionKind.Collective;
        d.Full = &WarpOps.Reduce;
    }

    private void DecodeLoadMatrix(ref Instruction d, Form form)
    {
        if (!form.Take("sync") || !form.Take("aligned") || !form.Take("m8n8")) throw Unsupported("unknown form");
        d.Count = form.TakeOneOf("x1", "x2", "x4") switch { "x1" => 1, "x2" => 2, "x4" => 4, _ => throw Unsupported("unknown number of matrices") };
        if (form.Take("trans")) d.Flags |= 1 << 8;
        if (TakeSpace(form) != Space.Shared || form.TakeType() != new PtxType('b', 16)) throw Unsupported("only .shared.b16");
        Operands(2);
        PtxOperand to = _current.Operands[0], memory = _current.Operands[1];
        PtxOperand[] items = to.Kind == OperandKind.Vector ? to.Items : [to];
        if (items.Length != d.Count || memory.Kind != OperandKind.Memory) throw Unsupported("unknown operands");
        for (int k = 0; k < items.Length; k++) d.X[k] = Destination(items[k], PtxType.B32);
        Address(ref d, memory, Space.Shared);
        d.Kind = InstructionKind.Collective;
        d.IsAligned = true;
        d.Full = &MatrixOps.LoadMatrix;
    }

    private void DecodeMultiply(ref Instruction d, Form form, out long flops)
    {
        if (!form.Take("sync") || !form.Take("aligned")) throw Unsupported("unknown form");
        string shape = form.TakeOneOf("m16n8k4", "m16n8k8", "m16n8k16", "m16n8k32") ?? throw Unsupported("this shape is not supported");
        if (!form.Take("row") || !form.Take("col")) throw Unsupported("only .row.col");
        if (form.Take("satfinite")) d.Flags |= MatrixOps.Saturate;
        PtxType typeD = form.TakeType(), typeA = form.TakeType(), typeB = form.TakeType(), typeC = form.TakeType();
        int k = int.Parse(shape.AsSpan("m16n8k".Length), System.Globalization.CultureInfo.InvariantCulture);
        flops = 2L * 16 * 8 * k;
        int a, b, c = 4;
        switch (typeA.ToString(), typeB.ToString(), typeC.ToString(), k)
        {
            case ("bf16", "bf16", "f32", 8 or 16): (a, b) = (k / 4, k / 8); d.Flags |= MatrixOps.Bf16; break;
            case ("f16", "f16", "f32", 8 or 16): (a, b) = (k / 4, k / 8); d.Flags |= MatrixOps.F16; break;
            case ("f16", "f16", "f16", 8 or 16): (a, b, c) = (k / 4, k / 8, 2); d.Flags |= MatrixOps.F16 | MatrixOps.HalfAccumulator; break;
            case ("tf32", "tf32", "f32", 4 or 8): (a, b) = (k / 2, k / 4); d.Flags |= MatrixOps.Tf32; break;
            case ("s8" or "u8", "s8" or "u8", "s32", 16 or 32):
                (a, b) = (k / 8, k / 16);
                d.Flags |= (typeA.IsSigned ? MatrixOps.S8 : MatrixOps.U8) | (typeB.IsSigned ? MatrixOps.S8 : MatrixOps.U8) << MatrixOps.TypeBShift;
                break;
            default: throw Unsupported("these types and this shape do not go together");
        }
        if (typeD != typeC) throw Unsupported("D and C must have one type");
        if ((d.Flags & MatrixOps.Saturate) != 0 && typeC.IsFloat) throw Unsupported(".satfinite is for integers");
        d.Flags |= k << MatrixOps.KShift;
        Operands(4);
        PtxType cRegister = typeC == F32 ? F32 : PtxType.B32;
        PlaceFragment(ref d, 0, _current.Operands[0], c, cRegister, isDestination: true);
        PlaceFragment(ref d, 4, _current.Operands[1], a, PtxType.B32, false);
        PlaceFragment(ref d, 8, _current.Operands[2], b, PtxType.B32, false);
        PlaceFragment(ref d, 10, _current.Operands[3], c, cRegister, false);
        d.Kind = InstructionKind.Collective;
        d.IsAligned = true;
        d.Full = &MatrixOps.Multiply;
    }

    private void PlaceFragment(ref Instruction d, int at, PtxOperand operand, int count, PtxType type, bool isDestination)
    {
        PtxOperand[] items = operand.Kind == OperandKind.Vector ? operand.Items : [operand];
        if (items.Length != count) throw Unsupported($"a fragment has {items.Length} registers instead of {count}");
        for (int k = 0; k < count; k++) d.X[at + k] = isDestination ? Destination(items[k], type) : Source(items[k], type);
    }
}
