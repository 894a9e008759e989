using System.Runtime.InteropServices;
using ZEngine.Cuda;
using ZEngine.Emulator;

namespace ZEngine.Tests.Emulator;

/// <summary>
/// A CUDA device over an emulator that runs of each grid its first and last blocks alone, and has room for tensors of any size: what an op makes of the first and the last of many sequences
/// costs what two sequences cost. Random numbers and results go from and to the host, as a kernel that copied them would not run whole either.
/// </summary>
internal sealed class OuterDevice : IDisposable
{
    /// <summary>Random numbers are repeated beyond so many, an odd number; and so many of a result are looked at, at either end.</summary>
    private const int Repeated = (1 << 16) + 1, Compared = 1 << 18;

    private readonly EmulatedCudaDriver _driver;

    private OuterDevice(long blocks, int architecture, int? multiprocessors)
    {
        _driver = new EmulatedCudaDriver(new EmulatorOptions
        {
            Checks = EmulatorChecks.None, StopsAtFinding = true, Architecture = architecture, Multiprocessors = multiprocessors, DeviceMemoryBytes = 1ul << 43, OuterBlocks = new OuterBlocks(blocks, TicketOf),
        });
        Device = Devices.OpenEmulated(_driver);
    }

    public CudaDevice Device { get; }

    /// <summary>Runs an op on two sequences, and on <paramref name="batch"/> of which the first and the last are those two: their results are the same bits.</summary>
    /// <param name="batch">Sequences.</param>
    /// <param name="blocks">Blocks at either end of each grid.</param>
    /// <param name="run">The op on so many sequences: the results that have these along their first axis, and sums over them, of which at least one end is there.</param>
    /// <param name="architecture">The device's architecture.</param>
    /// <param name="multiprocessors">Its multiprocessors, or null for as many as there are.</param>
    public static void Compare(long batch, long blocks, Func<OuterDevice, long, (Tensor[] Sequences, Tensor[] Sums)> run, int architecture = 80, int? multiprocessors = null)
    {
        int[] sizes = [];
        int count = 0;
        float[][] Ends(long sequences)
        {
            using var device = new OuterDevice(blocks, architecture, multiprocessors);
            using TensorScope scope = TensorScope.Enter();
            (Tensor[] own, Tensor[] sums) = run(device, sequences);
            Tensor[] results = [.. own, .. sums];
            count = own.Length;
            if (sizes.Length == 0) sizes = [.. results.Select(tensor => (int)Math.Min(tensor.Count / 2, Compared))];
            float[][] ends = [.. results.SelectMany((tensor, k) => (float[][])[Read(tensor, 0, sizes[k]), Read(tensor, tensor.Count - sizes[k], sizes[k])])];
            device.Device.Synchronize();
            return ends;
        }
        float[][] want = Ends(2), got = Ends(batch);
        for (int k = 0; k < want.Length; k++)
        {
            string which = $"result {k / 2}, {(k % 2 == 0 ? "its begin" : "its end")}";
            Assert.True(Array.Exists(want[k], value => value != 0) || k / 2 >= count && Array.Exists(want[k ^ 1], value => value != 0), $"{which}, is 0 of two sequences");
            Assert.True(want[k].AsSpan().SequenceEqual(got[k]), $"{which}, is not that of two sequences");
        }
    }

    /// <summary>Normal numbers of a parameter, which all sequences share.</summary>
    public Tensor Normal(ulong seed, params ReadOnlySpan<long> shape)
    {
        Tensor tensor = Tensor.Zeros(shape, DType.Float32, Device);
        Write(tensor, seed, DType.Float32);
        return tensor;
    }

    /// <summary>Minus the exponentials of normal numbers.</summary>
    public Tensor Rates(params ReadOnlySpan<long> shape)
    {
        Tensor tensor = Tensor.Zeros(shape, DType.Float32, Device);
        tensor.CopyFrom<float>([.. Random(99, tensor.Count).Select(x => -MathF.Exp(x))]);
        return tensor;
    }

    /// <summary>Normal numbers of the first sequence and others of the last; those between are zeros that nobody wrote.</summary>
    public Tensor Sequences(ulong seed, DType type, long batch, params ReadOnlySpan<long> shape)
    {
        Tensor tensor = Zeros(type, batch, shape);
        Write(tensor.Slice(0, 0, 1), 2 * seed, type);
        Write(tensor.Slice(0, batch - 1, 1), 2 * seed + 1, type);
        return tensor;
    }

    /// <summary>Zeros, for what an op writes.</summary>
    public Tensor Zeros(DType type, long batch, params ReadOnlySpan<long> shape) => Tensor.Zeros([batch, .. shape], type, Device);

    /// <summary>A tensor whose last element is beyond 2³¹.</summary>
    public static void IsLong(long count, long batch) => Assert.True(batch == 2 || count > 1L << 31, $"{count:N0} elements");

    /// <summary>The same of some tensors.</summary>
    public static void AreLong(long batch, params ReadOnlySpan<Tensor?> tensors)
    {
        foreach (Tensor? tensor in tensors) IsLong(tensor!.Count, batch);
    }

    private static float[] Random(ulong seed, long count) => ZEngine.Ops.RandomNormal([count], ZEngine.Device.Cpu, new RandomStream(seed)).ToArray<float>();

    private static void Write(Tensor tensor, ulong seed, DType type)
    {
        float[] some = Random(seed, Math.Min(tensor.Count, Repeated));
        if (type == DType.Float32) tensor.CopyFrom<float>(Repeat(some, tensor.Count));
        else tensor.CopyFrom<BFloat16>(Repeat([.. some.Select(x => (BFloat16)x)], tensor.Count));
    }

    private static T[] Repeat<T>(T[] some, long count)
    {
        var all = new T[count];
        for (long at = 0; at < count; at += some.Length) Array.Copy(some, 0, all, at, Math.Min(some.Length, count - at));
        return all;
    }

    private static float[] Read(Tensor tensor, long first, int count)
    {
        Tensor part = tensor.Reshape(tensor.Count).Slice(0, first, count);
        return tensor.DType == DType.Float32 ? part.ToArray<float>() : [.. part.ToArray<BFloat16>().Select(x => (float)x)];
    }

    private static ulong? TicketOf(string kernel, ReadOnlyMemory<byte> arguments)
    {
        if (kernel.Contains("selective_scan_backward", StringComparison.Ordinal))
        {
            var scan = MemoryMarshal.Read<CudaBackend.SelectiveScanBackwardArgs>(arguments.Span);
            return scan.Turns + (ulong)scan.Words * sizeof(uint);
        }
        if (kernel.Contains("rms_norm_backward", StringComparison.Ordinal))
        {
            var norm = MemoryMarshal.Read<CudaBackend.RmsNormBackwardArgs>(arguments.Span);
            return norm.Turns + (ulong)((long)norm.Slots * norm.Groups) * sizeof(uint);
        }
        if (!kernel.Contains("ssd_scan_backward", StringComparison.Ordinal)) return null;
        var dual = MemoryMarshal.Read<CudaBackend.SsdBackwardArgs>(arguments.Span);
        return dual.Turns + (ulong)(dual.Chunks * dual.Chunk.Shape.G * dual.Passes) * sizeof(uint);
    }

    public void Dispose()
    {
        Device.Dispose();
        _driver.Dispose();
    }
}
