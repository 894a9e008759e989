using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    /// <summary>As in kernels/StateUpdate.cu: threads of a block; channels of a unit, and units of a block at most.</summary>
    private const int StateUpdateThreads = 256, StateUpdateChannels = 32, StateUpdateMostUnits = 8;

    /// <summary>Blocks for each multiprocessor that are left where a block takes more units, which share B and C.</summary>
    private const int StateUpdateBlocksOfMultiprocessor = 8;

    /// <summary>Mirrors StateUpdateArgs in kernels/StateUpdate.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct StateUpdateArgs
    {
        public ulong X, Dt, Z, Y, Convolution, States, Tickets, Slots, Weight, Bias, A, Skip, DtBias;
        public long XBatch, DtBatch, ZBatch, SlotCount;
        public int H, P, G, N, K, HasSoftplus, HasLogA, IsLong, IsStateWide, IsWeightWide, Units, LaneBits;
        public float MinDelta, MaxDelta;
    }

    internal override void StateUpdate(StateUpdateInputs x, Tensor y)
    {
        (Tensor convolution, Tensor scan) = (x.Cache.Convolution, x.Cache.Scan);
        int heads = Size32("StateUpdate", "H", scan.Shape[1]), p = Size32("StateUpdate", "P", scan.Shape[2]), n = Size32("StateUpdate", "N", scan.Shape[3]);
        _ = Size32("StateUpdate", "H·P + 2·G·N", convolution.Shape[2]);
        if (n > SsdPlan.MaxStates) throw new NotSupportedException($"StateUpdate: N is {n}, the kernel takes at most {SsdPlan.MaxStates} states.");
        int groups = (int)x.Cache.Tickets.Shape[1], vector = WideElements(scan.DType), padded = (n + vector - 1) / vector * vector, units = 1, laneBits = 3;
        long all = heads / groups * SsdPlan.Slices(p, StateUpdateChannels), sequences = y.Shape[0] * groups;
        while (units < StateUpdateMostUnits && sequences * ((all + 2 * units - 1) / (2 * units)) >= (long)device.Multiprocessors * StateUpdateBlocksOfMultiprocessor) units *= 2;
        while (laneBits < 5 && vector << laneBits < n) laneBits++;                      // lanes of a channel
        int blocks = Blocks("StateUpdate", sequences * ((all + units - 1) / units));
        Kernel("StateUpdate.cu", $"state_update<{y.DType}, {scan.DType}>").Launch(blocks, StateUpdateThreads, (2 * padded + units * StateUpdateChannels) * sizeof(float), new StateUpdateArgs
        {
            X = Pointer(x.X), Dt = Pointer(x.Dt), Z = Pointer(x.Z), Y = Pointer(y), Convolution = Pointer(convolution), States = Pointer(scan), Tickets = Pointer(x.Cache.Tickets), Slots = Pointer(x.Slots),
            Weight = Pointer(x.Weight), Bias = Pointer(x.Bias), A = Pointer(x.A), Skip = Pointer(x.D), DtBias = Pointer(x.DtBias),
            XBatch = x.X.Strides[0], DtBatch = x.Dt.Strides[0], ZBatch = x.Z?.Strides[0] ?? 0, SlotCount = scan.Shape[0],
            H = heads, P = p, G = groups, N = n, K = Size32("StateUpdate", "K", x.Weight.Shape[1]),
            HasSoftplus = x.Options.HasSoftplus ? 1 : 0, HasLogA = x.Options.HasLogA ? 1 : 0, IsLong = x.Slots is null ? 0 : IsLong(x.Slots), IsStateWide = n % vector == 0 && IsAligned(scan, vector) ? 1 : 0,
            IsWeightWide = x.Weight.Shape[1] == 4 && IsAligned(x.Weight, 4) ? 1 : 0, Units = units, LaneBits = laneBits,
            MinDelta = x.Options.MinDelta, MaxDelta = x.Options.MaxDelta,
        });
    }
}
