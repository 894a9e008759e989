// One room: what a parsed PTX module consists of, declarations alone.
namespace ZEngine.Emulator.Ptx;

/// <summary>The PTX contains something this emulator does not execute. It is raised when a module is loaded, never later.</summary>
public sealed class PtxUnsupportedException : Exception
{
    /// <summary>Creates the exception.</summary>
    /// <param name="form">The directive, or the opcode with its modifiers.</param>
    /// <param name="reason">What about it is not supported.</param>
    /// <param name="where">Module, PTX line and source line.</param>
    public PtxUnsupportedException(string form, string reason, string where) : base($"{where}: {form}: {reason}") => Form = form;

    /// <summary>The directive, or the opcode with its modifiers.</summary>
    public string Form { get; }
}

internal enum Space : byte { None, Register, Global, Shared, Local, Const, Param }

/// <summary>Where in the CUDA source an instruction comes from.</summary>
/// <param name="IsOneOfSeveral">Whether this place was inlined elsewhere before: debug information does not say which of them is meant.</param>
internal sealed record SourceLocation(string File, int Line, int Column, string? Function, SourceLocation? InlinedAt, bool IsOneOfSeveral = false)
{
    public override string ToString() =>
        $"{File}:{Line}" + (InlinedAt is null ? "" : $" {Function} inlined at {InlinedAt}{(IsOneOfSeveral ? " or before" : "")}");
}

/// <summary>A scalar type: its class of values and its width.</summary>
/// <param name="Kind">'b' untyped, 'u' unsigned, 's' signed, 'f' IEEE, 'p' predicate, and 'h' bfloat16, 't' tf32.</param>
/// <param name="Bits">Width of one element.</param>
/// <param name="Lanes">2 for packed pairs.</param>
internal readonly record struct PtxType(char Kind, int Bits, int Lanes = 1)
{
    public static readonly PtxType Pred = new('p', 1), B32 = new('b', 32), U32 = new('u', 32), B64 = new('b', 64), U64 = new('u', 64);

    public int TotalBits => Bits * Lanes;
    public int Bytes => TotalBits / 8;
    public bool IsFloat => Kind is 'f' or 'h' or 't';
    public bool IsSigned => Kind == 's';
    public bool IsInteger => Kind is 'b' or 'u' or 's';

    public static bool TryParse(string text, out PtxType type)
    {
        type = text switch
        {
            "pred" => Pred,
            "b8" => new('b', 8), "u8" => new('u', 8), "s8" => new('s', 8),
            "b16" => new('b', 16), "u16" => new('u', 16), "s16" => new('s', 16),
            "b32" => B32, "u32" => U32, "s32" => new('s', 32),
            "b64" => B64, "u64" => U64, "s64" => new('s', 64),
            "b128" => new('b', 128),
            "f16" => new('f', 16), "f16x2" => new('f', 16, 2), "f32" => new('f', 32), "f64" => new('f', 64),
            "bf16" => new('h', 16), "bf16x2" => new('h', 16, 2), "tf32" => new('t', 32),
            _ => default,
        };
        return type.Kind != 0;
    }

    public override string ToString() =>
        Kind == 'p' ? "pred" : Kind == 't' ? "tf32" : (Kind == 'h' ? "bf" : Kind.ToString()) + Bits + (Lanes > 1 ? "x2" : "");
}

/// <summary>A virtual register. Each has one slot of 32 lanes, or one mask of 32 bits for a predicate.</summary>
internal sealed class PtxRegister(string name, PtxType type)
{
    public string Name => name;
    public PtxType Type => type;
    public bool IsWide => type.TotalBits == 64;
    public bool IsPredicate => type.Kind == 'p';
    /// <summary>Byte offset in a warp's register file.</summary>
    public int Slot = -1;
    /// <summary>Instructions that write it; a single writer of an immediate makes it a constant.</summary>
    public int Definitions;
    public ulong? Constant;
}

/// <summary>A variable in memory or a parameter.</summary>
internal sealed class PtxVariable
{
    public required string Name;
    public Space Space;
    public PtxType Type;
    public int Align = 1;
    public long Bytes;
    public bool IsExtern;
    public byte[]? Initial;
    /// <summary>Addresses of other variables inside the initial value: offset, name, and whether it is generic.</summary>
    public List<(int Offset, string Symbol, long Addend)>? InitialAddresses;
    /// <summary>Offset in its window, or the device address of a global.</summary>
    public ulong Address;
}

internal enum OperandKind : byte { Register, Immediate, Symbol, Memory, Vector, Sink, List, Special }

internal sealed class PtxOperand
{
    public OperandKind Kind;
    public PtxRegister? Register;
    /// <summary>Integer value, or the bits of a float.</summary>
    public ulong Value;
    /// <summary>For a float immediate, its width; 0 for an integer.</summary>
    public int FloatBits;
    public string Name = "";
    public PtxVariable? Variable;
    public PtxOperand? Base;
    public long Offset;
    public bool Negated;
    public PtxOperand? Second;
    public PtxOperand[] Items = [];
}

internal sealed class PtxInstruction
{
    public required string Opcode;
    public required string[] Modifiers;
    public PtxOperand[] Operands = [];
    public PtxRegister? Guard;
    public bool GuardNegated;
    public int Line;
    public SourceLocation? Source;
    public required Scope Scope;
    public uint UsedBytes = uint.MaxValue;

    public string Form => Modifiers.Length == 0 ? Opcode : $"{Opcode}.{string.Join('.', Modifiers)}";
    public bool Has(string modifier) => Array.IndexOf(Modifiers, modifier) >= 0;
}

/// <summary>A block in braces: inner names hide outer ones, for registers, variables and labels alike.</summary>
internal sealed class Scope(Scope? parent)
{
    public readonly Dictionary<string, PtxRegister> Registers = [];
    public readonly Dictionary<string, PtxVariable> Variables = [];
    public readonly Dictionary<string, int> Labels = [];

    public PtxRegister? FindRegister(string name)
    {
        for (Scope? s = this; s is not null; s = s.Parent) if (s.Registers.TryGetValue(name, out PtxRegister? found)) return found;
        return null;
    }

    public PtxVariable? FindVariable(string name)
    {
        for (Scope? s = this; s is not null; s = s.Parent) if (s.Variables.TryGetValue(name, out PtxVariable? found)) return found;
        return null;
    }

    public int? FindLabel(string name)
    {
        for (Scope? s = this; s is not null; s = s.Parent) if (s.Labels.TryGetValue(name, out int found)) return found;
        return null;
    }

    public Scope? Parent => parent;
}

internal sealed class PtxFunction
{
    public required string Name;
    public bool IsEntry;
    public bool HasBody;
    public readonly List<PtxVariable> Parameters = [], Results = [], Variables = [];
    public readonly List<PtxRegister> Registers = [];
    public readonly List<PtxInstruction> Instructions = [];
    public (int X, int Y, int Z)? MaxThreads, RequiredThreads;
    public (int X, int Y, int Z)? RequiredCluster;
    public int Line;
}

internal sealed class PtxModule
{
    public required string Name;
    public string Version = "", Target = "";
    public readonly Dictionary<string, PtxFunction> Functions = [];
    public readonly Scope Globals = new(null);
    public readonly Dictionary<int, string> Files = [];
    public readonly Dictionary<string, string> DebugStrings = [];
}
