using System.Runtime.InteropServices;

namespace ZEngine;

/// <summary>The CPU of this process: SIMD of whatever width the machine has, and a pool of threads.</summary>
/// <remarks>Results have the same bits for any number of threads.</remarks>
public sealed class CpuDevice : Device
{
    private readonly CpuPool _pool;

    private CpuDevice() : base("cpu")
    {
        _pool = new CpuPool(this);
        Backend = new CpuBackend();
    }

    /// <summary>How many threads an op may use; the machine's cores, or the environment variable <c>ZENGINE_THREADS</c>.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Not between 1 and 1024.</exception>
    public static int Threads
    {
        get => CpuThreads.Count;
        set
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1);
            ArgumentOutOfRangeException.ThrowIfGreaterThan(value, CpuThreads.MaxThreads);
            CpuThreads.Count = value;
        }
    }

    /// <summary>The vector unit that the kernels use, for example <c>512-bit, 16 floats a step</c>.</summary>
    public static string Simd => $"{32 * CpuSimd.Width}-bit, {CpuSimd.Width} floats a step";

    internal static CpuDevice Instance { get; } = new();

    internal override Backend Backend { get; }

    /// <summary>Test switch: fill fresh memory with NaN and check the bytes around every block when it comes back.</summary>
    internal bool Guards { get => _pool.Guards; set => _pool.Guards = value; }

    /// <inheritdoc/>
    public override void Trim() => _pool.Trim();

    /// <inheritdoc/>
    public override void Synchronize() { }

    private protected override Storage Rent(long bytes) => _pool.Rent(bytes);

    private protected override void Recycle(Storage storage) => _pool.Recycle(storage);

    internal override unsafe void CopyFromHost(ReadOnlySpan<byte> source, nint destination) =>
        source.CopyTo(new Span<byte>((void*)destination, source.Length));

    internal override unsafe void CopyToHost(nint source, Span<byte> destination) =>
        new ReadOnlySpan<byte>((void*)source, destination.Length).CopyTo(destination);

    internal override unsafe void Clear(nint address, long bytes) => NativeMemory.Clear((void*)address, (nuint)bytes);
}
