using System.Runtime.InteropServices;
using System.Security.Cryptography;
using ZEngine.Emulator.Decode;
using ZEngine.Emulator.Execution;
using ZEngine.Emulator.Ptx;

namespace ZEngine.Emulator.Driver;

/// <summary>A module's text parsed and its kernels decoded. None of it changes any more, so all drivers of a process share it.</summary>
internal sealed class DecodedModule
{
    /// <summary>The modules decoded last stay, though no driver holds them.</summary>
    private const int Kept = 64;

    private static readonly Lock Gate = new();
    private static readonly Dictionary<(string Digest, string Name, bool IsJittered), WeakReference<DecodedModule>> Known = [];
    private static readonly Queue<DecodedModule> Recent = [];

    /// <summary>Decodes all kernels of a module. The variables that they use must have their addresses.</summary>
    public DecodedModule(PtxModule parsed, EmulatorOptions options)
    {
        Parsed = parsed;
        Kernels = [.. parsed.Functions.Values.Where(function => function.IsEntry).Select(function => Decoder.Decode(parsed, function, options))];
    }

    public PtxModule Parsed { get; }
    public KernelProgram[] Kernels { get; }

    /// <summary>
    /// The module of a text, new or known. Null where it is not to be shared: its code holds the addresses of variables, which are those of one device, or its handlers
    /// are broken on purpose.
    /// </summary>
    public static DecodedModule? Shared(string text, string name, EmulatorOptions options)
    {
        if (options.Mutation is not null) return null;
        var key = (Convert.ToHexString(SHA256.HashData(MemoryMarshal.AsBytes(text.AsSpan()))), name, options.JitterApproximations);
        lock (Gate)
            if (Known.TryGetValue(key, out WeakReference<DecodedModule>? reference) && reference.TryGetTarget(out DecodedModule? known)) return known;
        PtxModule parsed = PtxParser.Parse(text, name);
        if (parsed.Functions.Values.Any(function => function.Instructions.Any(instruction => instruction.Operands.Any(NamesVariable)))) return null;
        var module = new DecodedModule(parsed, options);
        lock (Gate)
        {
            Known[key] = new WeakReference<DecodedModule>(module);
            Recent.Enqueue(module);
            if (Recent.Count <= Kept) return module;
            Recent.Dequeue();
            foreach (var gone in Known.Where(known => !known.Value.TryGetTarget(out _)).Select(known => known.Key).ToArray()) Known.Remove(gone);
        }
        return module;
    }

    private static bool NamesVariable(PtxOperand operand) =>
        operand.Variable is { Space: Space.Global or Space.Const } || operand.Base is { } address && NamesVariable(address) || operand.Items.Any(NamesVariable);
}
