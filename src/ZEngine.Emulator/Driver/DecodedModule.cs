using System.Security.Cryptography;
using System.Runtime.InteropServices;
using ZEngine.Emulator.Decode;
using ZEngine.Emulator.Execution;
using ZEngine.Emulator.Ptx;

namespace ZEngine.Emulator.Driver;

/// <summary>
/// A module's text parsed and its kernels decoded: none of it changes any more, so all drivers of a process share it. Only where the module has variables are
/// their addresses, those of one device, part of the code.
/// </summary>
internal sealed class DecodedModule
{
    /// <summary>The modules used last stay, though no driver holds them.</summary>
    private const int Kept = 64;

    private static readonly Lock Gate = new();
    private static readonly Dictionary<(string Digest, string Name, bool IsJittered), WeakReference<DecodedModule>> Known = [];
    private static readonly Queue<DecodedModule> Recent = [];

    /// <summary>Decodes the kernels of a module whose variables have their addresses.</summary>
    public DecodedModule(PtxModule parsed, EmulatorOptions options)
    {
        Parsed = parsed;
        Kernels = [.. parsed.Functions.Values.Where(function => function.IsEntry).Select(function => Decoder.Decode(parsed, function, options))];
    }

    public PtxModule Parsed { get; }
    public KernelProgram[] Kernels { get; }

    /// <summary>The module of a text. A new one is given its place in memory first, and is not shared when it has one, or when its handlers are broken on purpose.</summary>
    /// <param name="text">The PTX.</param>
    /// <param name="name">What reports call it.</param>
    /// <param name="options">How it is decoded.</param>
    /// <param name="place">Gives its variables their addresses; false when it has none.</param>
    public static DecodedModule Of(string text, string name, EmulatorOptions options, Func<PtxModule, bool> place)
    {
        var key = (Convert.ToHexString(SHA256.HashData(MemoryMarshal.AsBytes(text.AsSpan()))), name, options.JitterApproximations);
        lock (Gate)
            if (options.Mutation is null && Known.TryGetValue(key, out WeakReference<DecodedModule>? reference) && reference.TryGetTarget(out DecodedModule? known)) return known;
        PtxModule parsed = PtxParser.Parse(text, name);
        bool isPlaced = place(parsed);
        var module = new DecodedModule(parsed, options);
        if (isPlaced || options.Mutation is not null) return module;
        lock (Gate)
        {
            Known[key] = new WeakReference<DecodedModule>(module);
            Recent.Enqueue(module);
            if (Recent.Count > Kept) Recent.Dequeue();
        }
        return module;
    }
}
