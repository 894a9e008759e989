using System.Collections.Concurrent;
using System.Numerics;
using System.Runtime.InteropServices;

namespace ZEngine.Emulator.Memory;

/// <summary>Host memory that launches use one after the other: memory fresh from the system costs a page fault for every 4 KiB.</summary>
internal static unsafe class ScratchMemory
{
    private const nuint Alignment = 1024, Smallest = 4096;
    private const long MostIdle = 256 << 20;

    private static readonly ConcurrentDictionary<nuint, ConcurrentStack<nint>> Idle = [];
    private static long s_idleBytes;

    /// <summary>At least so many bytes, with whatever is in them.</summary>
    public static byte* Rent(nuint bytes)
    {
        nuint size = SizeOf(bytes);
        if (!Idle.TryGetValue(size, out ConcurrentStack<nint>? stack) || !stack.TryPop(out nint block)) return (byte*)NativeMemory.AlignedAlloc(size, Alignment);
        Interlocked.Add(ref s_idleBytes, -(long)size);
        return (byte*)block;
    }

    /// <summary>Takes back what was rented with the same number.</summary>
    public static void Return(byte* memory, nuint bytes)
    {
        nuint size = SizeOf(bytes);
        if (Interlocked.Add(ref s_idleBytes, (long)size) > MostIdle)
        {
            Interlocked.Add(ref s_idleBytes, -(long)size);
            NativeMemory.AlignedFree(memory);
            return;
        }
        Idle.GetOrAdd(size, _ => new ConcurrentStack<nint>()).Push((nint)memory);
    }

    private static nuint SizeOf(nuint bytes) => BitOperations.RoundUpToPowerOf2(Math.Max(bytes, Smallest));
}
