using System.Runtime.InteropServices;

namespace ZEngine.Tests.Ops;

/// <summary>A second device in this process: the CPU's kernels on memory of its own. Nothing pools and nothing is fast.</summary>
internal sealed unsafe class OtherDevice() : Device("other")
{
    internal override Backend Backend => Cpu.Backend;

    public override void Trim() { }

    public override void Synchronize() { }

    internal override void CopyFromHost(ReadOnlySpan<byte> source, nint destination) => source.CopyTo(new Span<byte>((void*)destination, source.Length));

    internal override void CopyToHost(nint source, Span<byte> destination) => new ReadOnlySpan<byte>((void*)source, destination.Length).CopyTo(destination);

    internal override void Clear(nint address, long bytes) => NativeMemory.Clear((void*)address, (nuint)bytes);

    private protected override Storage Rent(long bytes) => new(this, (nint)NativeMemory.AlignedAlloc((nuint)Math.Max(bytes, 64), 128), bytes, isPooled: true);

    private protected override void Recycle(Storage storage)
    {
        storage.Forget();
        NativeMemory.AlignedFree((void*)storage.Address);
    }
}
