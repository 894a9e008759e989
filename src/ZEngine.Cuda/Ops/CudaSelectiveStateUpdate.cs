using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string SelectiveStateUpdateFile = "SelectiveStateUpdate.cu";

    /// <summary>As in kernels/SelectiveStateUpdate.cu: threads of a block and its warps; channels that are convolved at a time; channels and states of a block and a thread.</summary>
    private const int SelectiveThreads = 256, SelectiveWarps = 8, SelectiveChunk = 1024, SelectiveChannels = 32, SelectiveStates = 16, SelectiveManyRows = 8, SelectiveManyColumns = 4, SelectiveMostRows = 4096;

    /// <summary>Mirrors SelectiveStateArgs in kernels/SelectiveStateUpdate.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SelectiveStateArgs
    {
        public ulong X, Z, P, Y, Convolution, States, Slots, Weight, Bias, Project, DtProject, LogA, Skip, DtBias;
        public long XBatch, ZBatch, SlotCount;
        public int Batch, D, G, N, R, K, IsLong, IsProjectWide, IsDtProjectWide, AreStatesWide, IsWeightWide;
        public float Eps;
    }

    /// <summary>As in kernels/SelectiveStateUpdate.cu: floats from a state's channels in shared memory to those of the next.</summary>
    private static int SelectivePitch(int states) => SelectiveChannels + 8 / Math.Clamp((states + 3) / 4, 1, 8);

    internal override void SelectiveStateUpdate(Tensor x, SelectiveStateLayer layer, SelectiveStateCache cache, Tensor? z, Tensor? slots, Tensor y)
    {
        const string op = "SelectiveStateUpdate";
        int channels = Size32(op, "D", x.Shape[1]), n = Size32(op, "N", layer.LogA.Shape[1]), groups = (int)layer.Projection.Shape[0], own = channels / groups;
        long batch = x.Shape[0], rows = layer.Projection.Shape[1];
        if (n > SsdPlan.MaxStates) throw new NotSupportedException($"{op}: N is {n}, the kernels take at most {SsdPlan.MaxStates} states.");
        if (rows > SelectiveMostRows) throw new NotSupportedException($"{op}: R + 2·N is {rows:N0}, the kernels take at most {SelectiveMostRows:N0}.");
        using Tensor p = Tensor.Empty([batch, groups, rows], x.DType, x.Device);
        var args = new SelectiveStateArgs
        {
            X = Pointer(x), Z = Pointer(z), P = Pointer(p), Y = Pointer(y), Convolution = Pointer(cache.Convolution), States = Pointer(cache.Scan), Slots = Pointer(slots),
            Weight = Pointer(layer.Weight), Bias = Pointer(layer.Bias), Project = Pointer(layer.Projection), DtProject = Pointer(layer.DtProjection), LogA = Pointer(layer.LogA), Skip = Pointer(layer.D), DtBias = Pointer(layer.DtBias),
            XBatch = x.Strides[0], ZBatch = z?.Strides[0] ?? 0, SlotCount = cache.Scan.Shape[0],
            Batch = Size32(op, "B", batch), D = channels, G = groups, N = n, R = (int)layer.DtProjection.Shape[1], K = Size32(op, "K", layer.Weight.Shape[1]), IsLong = slots is null ? 0 : IsLong(slots),
            IsProjectWide = IsWide(layer.Projection, own) ? 1 : 0, IsDtProjectWide = IsWide(layer.DtProjection, layer.DtProjection.Shape[1]) ? 1 : 0,
            AreStatesWide = n % 4 == 0 && IsAligned(cache.Scan, 4) && IsAligned(layer.LogA, 4) ? 1 : 0, IsWeightWide = layer.Weight.Shape[1] == 4 && IsAligned(layer.Weight, 4) ? 1 : 0, Eps = layer.NormEpsilon ?? -1,
        };
        (int together, int columns) = batch == 1 ? (1, 1) : (SelectiveManyRows, SelectiveManyColumns);
        long rowBlocks = (rows + SelectiveWarps * columns - 1) / (SelectiveWarps * columns), channelBlocks = (own + SelectiveChannels - 1) / SelectiveChannels;
        Kernel(SelectiveStateUpdateFile, $"selective_state_project<{x.DType}, {layer.Projection.DType}, {together}>").Launch(
            Blocks(op, groups * rowBlocks * ((batch + together - 1) / together)), SelectiveThreads, together * SelectiveChunk * x.DType.Size, args);
        Kernel(SelectiveStateUpdateFile, $"selective_state_update<{x.DType}, {layer.Projection.DType}>").Launch(
            Blocks(op, batch * groups * channelBlocks), SelectiveThreads, ((int)rows + SelectiveChannels * (2 + (n + SelectiveStates - 1) / SelectiveStates) + SelectivePitch(n) * n) * sizeof(float), args);
    }
}
