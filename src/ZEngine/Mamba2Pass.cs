namespace ZEngine;

/// <summary>One call of <see cref="Ops.Mamba2Scan"/>: what it computed, and what its gradients need.</summary>
internal sealed class Mamba2Pass
{
    private readonly Mamba2ScanOptions _options;
    private readonly Tensor _projected, _taps, _norm;
    private readonly Tensor[] _parts;                          // z, the convolution's channels, dt
    private readonly CausalConv1dInputs _convolution;
    private readonly SsdScanInputs _scan;
    private readonly Tensor? _states, _ungated, _rstd;

    /// <param name="inputs">The tensors of the call, in its order.</param>
    /// <param name="options">Of the call, nothing left open.</param>
    /// <param name="isTracked">Whether a gradient will be asked for.</param>
    public Mamba2Pass(ReadOnlySpan<Tensor?> inputs, Mamba2ScanOptions options, bool isTracked)
    {
        _options = options;
        (_projected, _taps, _norm) = (inputs[0]!.WithDenseInner(1), inputs[2]!.Contiguous(), inputs[3]!.Contiguous());
        (long batch, long length, long heads, long inner, long channels) = (_projected.Shape[0], _projected.Shape[1], inputs[1]!.Shape[0], _norm.Shape[0], _taps.Shape[0]);
        (Backend backend, DType dtype, Device device) = (_projected.Backend, _projected.DType, _projected.Device);
        SsdScanOptions scan = options.Scan!;
        long states = (channels - inner) / (2 * options.Groups), sequences = scan.Layout?.Count ?? batch;
        _parts = Ops.Split(_projected, inner, channels, heads);

        _convolution = new CausalConv1dInputs(_parts[1], _taps.Reshape(channels, -1), inputs[4]?.Contiguous(), inputs[7]?.Contiguous(), HasSilu: true, scan.Layout);
        ConvState = Tensor.Empty([sequences, _taps.Shape[2] - 1, channels], DType.Float32, device);
        bool isDeferred = options.DefersScale && options.NormGroupSize == inner && length > 1 && dtype != DType.Float16;
        (Tensor x, Tensor B, Tensor C) = ScanParts(_parts[1]);
        scan = scan with { ChunkLength = backend.SsdChunkLength(scan.ChunkLength, length, inner / heads, states) };
        var unmixed = new SsdScanInputs(x, _parts[2], inputs[1]!.Contiguous(), B, C, inputs[5]?.Contiguous(), isDeferred ? Heads(_parts[0]) : null, inputs[6]?.Contiguous(), inputs[8]?.Contiguous(), scan);
        SsdInput? input;
        (_scan, input) = Convolve(unmixed, isTracked);
        Tensor y = Tensor.Empty([batch, length, inner], dtype, device);
        ScanState = Tensor.Empty([sequences, heads, inner / heads, states], DType.Float32, device);
        Squares = isDeferred ? Tensor.Empty([batch, length, backend.SsdSquares(_scan)], DType.Float32, device) : null;
        _states = isTracked ? _scan.X.Backend.SsdStates(_scan) : null;
        _ungated = !isDeferred ? y : isTracked ? Tensor.EmptyLike(y) : null;
        backend.SsdScanForward(input is null ? _scan : _scan with { X = x }, Heads(y), ScanState, _states, isDeferred && isTracked ? Heads(_ungated!) : null, Squares is null ? null : new SsdGate(_norm, Squares), input);
        Y = y;
        if (isDeferred) return;
        Y = Tensor.Empty([batch, length, inner], dtype, device);
        _rstd = Tensor.Empty([batch * length * (inner / options.NormGroupSize)], DType.Float32, device);
        backend.RmsNormForward(NormInputs(y), Y, _rstd, null);
    }

    public Tensor Y { get; }

    /// <summary>Where the factor of each row is left to others: sums of its squares.</summary>
    public Tensor? Squares { get; }

    public Tensor ConvState { get; }

    public Tensor ScanState { get; }

    public void Record(ReadOnlySpan<Tensor?> inputs)
    {
        Tensor[] outputs = Squares is null ? [Y, ConvState, ScanState] : [Y, ConvState, ScanState, Squares];
        SsdScanInputs s = _scan;
        Tape.Record(
            outputs, inputs,
            [_projected, _taps, _norm, .. _parts, _convolution.Weight, _convolution.Bias, _convolution.InitialState, s.X, s.A, s.B, s.C, s.D, s.Z, s.DtBias, s.InitialState, _states, _ungated, _rstd],
            Gradients);
    }

    private Tensor?[] Gradients(Tensor?[] dOutputs)
    {
        (Backend backend, DType dtype, Device device) = (_projected.Backend, _projected.DType, _projected.Device);
        Tensor dy = dOutputs[0]?.Contiguous() ?? Tensor.Zeros(Y.Shape, dtype, device);
        Tensor dProjected = backend.EmptyRows(_projected.Shape, dtype, device), dMixed = Tensor.Empty(_parts[1].Shape, dtype, device), dUngated = Tensor.Empty(Y.Shape, dtype, device);
        Tensor[] dParts = Ops.Split(dProjected, _parts[0].Shape[2], _parts[1].Shape[2], _parts[2].Shape[2]);
        using PartialSums? sums = backend.NewPartialSums();

        RmsNormInputs norm = NormInputs(_ungated!), dNorm = norm with { X = dUngated, Weight = Tensor.EmptyLike(_norm), Z = dParts[0] };
        Tensor? dSquares = Squares is null ? null : dOutputs[3]?.Slice(2, 0, 1).Contiguous() ?? Tensor.Zeros(Y.Shape[..2], DType.Float32, device);
        backend.RmsNormBackward(norm, _rstd, dy, dNorm, null, dSquares, sums);

        (Tensor dx, Tensor dB, Tensor dC) = ScanParts(dMixed);
        SsdScanInputs scan = _scan with { Z = null };
        var d = new SsdScanInputs(dx, dParts[2], Tensor.EmptyLike(scan.A), dB, dC, Tensor.EmptyLikeOrNull(scan.D), null, Tensor.EmptyLikeOrNull(scan.DtBias), Tensor.EmptyLikeOrNull(scan.InitialState), scan.Options);
        backend.SsdScanBackward(scan, _states!, null, Heads(dUngated), dOutputs[2]?.Contiguous(), d);

        Tensor dTaps = Tensor.EmptyLike(_taps);
        using Tensor dWeight = dTaps.Reshape(_convolution.Weight.Shape);   // gone before the gradient is handed on, so that it has one owner
        CausalConv1dInputs dConvolution = _convolution with { X = dParts[1], Weight = dWeight, Bias = Tensor.EmptyLikeOrNull(_convolution.Bias), InitialState = Tensor.EmptyLikeOrNull(_convolution.InitialState) };
        backend.CausalConv1dBackward(_convolution, dMixed, dOutputs[1]?.Contiguous(), dConvolution, sums);
        return [dProjected, d.A, dTaps, dNorm.Weight, dConvolution.Bias, d.D, d.DtBias, dConvolution.InitialState, d.InitialState];
    }

    private RmsNormInputs NormInputs(Tensor y) => new(y, _norm, _parts[0], _options.NormEpsilon, GateOrder.BeforeNorm, _options.NormGroupSize);

    /// <summary>Behind the convolution: all channels at once, or B and C, and x on its way into the scan where the device has it so. x is kept for the gradients alone then.</summary>
    private (SsdScanInputs Scan, SsdInput? Input) Convolve(SsdScanInputs scan, bool isTracked)
    {
        (long inner, long channels) = (_norm.Shape[0], _taps.Shape[0]);
        Backend backend = _projected.Backend;
        Tensor Rows(long width) => Tensor.Empty([_projected.Shape[0], _projected.Shape[1], width], _projected.DType, _projected.Device);
        // A packed sequence of one step has the bits of a step by itself, which is not walked as a chunk is where nothing is kept of it.
        bool isOfX = backend.SsdConvolves(scan, _taps.Shape[2]) && (isTracked || scan.Z is not null || scan.Options.Layout is not { } layout || layout.Singles().Length == 0);
        long first = isOfX ? inner : 0, count = channels - first;
        Tensor mixed = Rows(count);
        backend.CausalConv1dForward(_convolution.Channels(first, count), mixed, ConvState.Slice(2, first, count));
        if (!isOfX)
        {
            (Tensor x, Tensor B, Tensor C) = ScanParts(mixed);
            return (scan with { X = x, B = B, C = C }, null);
        }
        Tensor[] parts = Ops.Split(mixed, count / 2, count / 2);
        Tensor? convolved = isTracked ? Rows(inner) : null;
        return (scan with { X = Heads(convolved ?? _parts[1].Slice(2, 0, inner)), B = Groups(parts[0]), C = Groups(parts[1]) },
            new SsdInput(_convolution.Channels(0, inner), ConvState.Slice(2, 0, inner), convolved));
    }

    /// <summary>x [B, L, H, P], B and C [B, L, G, N] of the convolution's channels.</summary>
    private (Tensor X, Tensor B, Tensor C) ScanParts(Tensor channels)
    {
        long inner = _norm.Shape[0], groupStates = (channels.Shape[2] - inner) / 2;
        Tensor[] parts = Ops.Split(channels, inner, groupStates, groupStates);
        return (Heads(parts[0]), Groups(parts[1]), Groups(parts[2]));
    }

    private Tensor Groups(Tensor tensor) => tensor.Reshape(tensor.Shape[0], tensor.Shape[1], _options.Groups, -1);

    private Tensor Heads(Tensor tensor) => tensor.Reshape(tensor.Shape[0], tensor.Shape[1], _parts[2].Shape[2], -1);
}
