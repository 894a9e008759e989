using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string CausalConv1dFile = "CausalConv1d.cu";

    /// <summary>As in kernels/CausalConv1d.cu: the widths of the windows, and the threads of a block, which walk a tile of steps.</summary>
    private const int ConvShortWindow = 4, ConvLongWindow = 8, ConvThreads = 128;

    /// <summary>Steps of a tile: as many as leave the device blocks enough.</summary>
    private const int ConvMinSteps = 8, ConvMaxSteps = 128, ConvBlocksOfMultiprocessor = 4;

    /// <summary>Mirrors CausalConv1dShape in kernels/CausalConv1d.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CausalConv1dShape
    {
        public ulong Weight, Bias, Initial, Starts;
        public long L, D, BatchStride, StepStride, StateStep, Tiles, TilesPerRow;
        public int K, Steps, Sequences, Slices, HasSilu;
    }

    /// <summary>Mirrors CausalConv1dArgs in kernels/CausalConv1d.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CausalConv1dArgs
    {
        public ulong X, Y, FinalState;
        public CausalConv1dShape Shape;
    }

    /// <summary>Mirrors CausalConv1dBackwardArgs in kernels/CausalConv1d.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CausalConv1dBackwardArgs
    {
        public ulong X, Dy, Dfinal, Dx, Dinitial, Partial;
        public long DxStride;
        public CausalConv1dShape Shape;
    }

    internal override void CausalConv1dForward(CausalConv1dInputs x, Tensor y, Tensor finalState)
    {
        if (y.Count == 0)
        {
            CarryState(x.InitialState, finalState);
            return;
        }
        bool isWide = IsConvWide(x) && IsAligned(finalState, 4) && finalState.Strides[1] % 4 == 0;
        int window = ConvWindow(x, isWide);
        using Tensor? starts = UploadSequences(x.Layout);
        CausalConv1dShape shape = ConvShape(x, starts, window, isWide) with { StateStep = finalState.Strides[1] };
        Kernel(CausalConv1dFile, $"causal_conv1d_forward<{y.DType}, {window}, {isWide}>").Launch(ConvBlocks(shape), ConvThreads, 0, new CausalConv1dArgs
        {
            X = Pointer(x.X), Y = Pointer(y), FinalState = Pointer(finalState), Shape = shape,
        });
    }

    internal override void CausalConv1dBackward(CausalConv1dInputs x, Tensor dy, Tensor? dFinalState, CausalConv1dInputs d, PartialSums? sums)
    {
        if (dy.Count == 0)
        {
            if (d.InitialState is not null) CarryState(dFinalState, d.InitialState);
            d.Weight.Clear();
            d.Bias?.Clear();
            return;
        }
        bool isWide = IsConvWide(x) && IsAligned(dy, WideElements(dy.DType)) && IsAligned(dFinalState, 4) && IsWide(d.X, x.X.Shape[2]);
        int window = ConvWindow(x, isWide);
        using Tensor? starts = UploadSequences(x.Layout);
        CausalConv1dShape shape = ConvShape(x, starts, window, isWide);
        Tensor partial = Tensor.Empty([shape.Tiles, shape.K + 1, shape.D], DType.Float32, dy.Device);
        using ColumnSums? own = sums is null ? new ColumnSums(this) : null;
        ColumnSums added = (ColumnSums?)sums ?? own!;
        added.Add(partial);
        Kernel(CausalConv1dFile, $"causal_conv1d_backward<{dy.DType}, {window}, {isWide}>").Launch(ConvBlocks(shape), ConvThreads, 0, new CausalConv1dBackwardArgs
        {
            X = Pointer(x.X), Dy = Pointer(dy), Dfinal = Pointer(dFinalState), Dx = Pointer(d.X), Dinitial = Pointer(d.InitialState), Partial = Pointer(partial), DxStride = d.X.RowStride(), Shape = shape,
        });
        added.To(d.Weight, 0, shape.K * shape.D, shape.D, shape.K);
        if (d.Bias is not null) added.To(d.Bias, shape.K * shape.D, shape.D, shape.D);
    }

    /// <summary>What no step changes, or zeros.</summary>
    private void CarryState(Tensor? from, Tensor to)
    {
        if (from is null) to.Clear();
        else Copy(from, to);
    }

    private CausalConv1dShape ConvShape(CausalConv1dInputs x, Tensor? starts, int window, bool isWide)
    {
        (long batch, long length, long width) = (x.X.Shape[0], x.X.Shape[1], x.X.Shape[2]);
        if (width > int.MaxValue) throw new NotSupportedException($"CausalConv1d: D is {width}, the kernels take at most {int.MaxValue} channels.");
        int channels = isWide && window == ConvShortWindow ? WideElements(x.X.DType) / 4 : 1;            // of a lane: 4 bytes of them
        int slices = Blocks("CausalConv1d", width, (long)ConvThreads * channels), steps = ConvMaxSteps;
        while (steps > ConvMinSteps && batch * ((length + steps - 1) / steps) * slices < (long)device.Multiprocessors * ConvBlocksOfMultiprocessor) steps /= 2;
        long tilesPerRow = (length + steps - 1) / steps;
        return new CausalConv1dShape
        {
            Weight = Pointer(x.Weight), Bias = Pointer(x.Bias), Initial = Pointer(x.InitialState), Starts = Pointer(starts),
            L = length, D = width, BatchStride = x.X.Strides[0], StepStride = x.X.Strides[1], StateStep = width, Tiles = batch * tilesPerRow, TilesPerRow = tilesPerRow,
            K = (int)x.Weight.Shape[1], Steps = steps, Sequences = x.Layout?.Count ?? 0, Slices = slices, HasSilu = x.HasSilu ? 1 : 0,
        };
    }

    private static int ConvBlocks(in CausalConv1dShape shape) => Blocks("CausalConv1d", shape.Tiles * shape.Slices);

    private static int ConvWindow(CausalConv1dInputs x, bool isWide)
    {
        long taps = x.Weight.Shape[1];
        if (taps > ConvLongWindow) throw new NotSupportedException($"CausalConv1d: K is {taps}, the kernels take at most {ConvLongWindow} taps.");
        return isWide && taps <= ConvShortWindow ? ConvShortWindow : ConvLongWindow;
    }

    private static bool IsConvWide(CausalConv1dInputs x)
    {
        int elements = WideElements(x.X.DType);
        return x.X.Shape[2] % elements == 0 && x.X.Strides[0] % elements == 0 && x.X.Strides[1] % elements == 0
            && IsAligned(x.X, elements) && IsAligned(x.Weight, 4) && IsAligned(x.Bias, 4) && IsAligned(x.InitialState, 4);
    }
}
