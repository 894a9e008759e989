namespace ZEngine;

/// <summary>How the state-space dual scan treats its input.</summary>
/// <param name="HasSoftplus">Whether softplus turns dt (+ bias) into Δ.</param>
/// <param name="MinDelta">Δ is at least this, after softplus.</param>
/// <param name="MaxDelta">Δ is at most this, after softplus.</param>
/// <param name="ChunkLength">Q, steps that are worked out as one matrix product; 0 lets the device choose, which also takes fewer where its tiles hold fewer. The result does not depend on it, up to rounding.</param>
/// <param name="Layout">Boundaries of packed sequences, or null.</param>
/// <param name="HasLogA">Whether A is given as ln(-A), as models keep it: then -exp of it is taken, and the gradient is that of the logarithm.</param>
public sealed record SsdScanOptions(
    bool HasSoftplus = true, float MinDelta = float.NegativeInfinity, float MaxDelta = float.PositiveInfinity, long ChunkLength = 0, SequenceLayout? Layout = null, bool HasLogA = false)
{
    internal void Require(in ShapeContract shape)
    {
        shape.RequireLayout(Layout);
        shape.Require(ChunkLength is >= 0 and <= 4096, $"ChunkLength must be from 0 to 4096, got {ChunkLength}.");
        shape.Require(MinDelta <= MaxDelta, $"MinDelta {MinDelta} is above MaxDelta {MaxDelta}.");
    }
}

/// <summary>How <see cref="Ops.Mamba2Scan"/> treats its input.</summary>
/// <param name="Groups">G: heads h·G/H.. share one group's B and C.</param>
/// <param name="NormEpsilon">Added to the norm's mean square.</param>
/// <param name="NormGroupSize">Channels that are normalised together; a divisor of H·P, or 0 for all.</param>
/// <param name="DefersScale">
/// Whether the norm's factor of each row may be left to <see cref="Ops.AddRmsNorm"/>, which is right where nothing but a product with a weight stands in between. It is left
/// where the norm runs over whole rows, the type holds what is not normalised (not in Float16), and there is more than one step: a single one has the bits of
/// <see cref="Ops.StateUpdate"/> and <see cref="Ops.RmsNorm"/>.
/// </param>
/// <param name="Scan">Of the scan, and the boundaries of packed sequences.</param>
public sealed record Mamba2ScanOptions(long Groups, float NormEpsilon, long NormGroupSize = 0, bool DefersScale = false, SsdScanOptions? Scan = null);

/// <summary>What <see cref="Ops.Mamba2Scan"/> returns.</summary>
/// <param name="Y">[B, L, H·P].</param>
/// <param name="Scale">The factor of each row that is still to be applied, or null.</param>
/// <param name="ConvState">The final state of the convolution, of the shape of the initial one.</param>
/// <param name="ScanState">The final state of the scan, of the shape of the initial one.</param>
public sealed record Mamba2ScanResult(Tensor Y, RowScale? Scale, Tensor ConvState, Tensor ScanState);

public static partial class Ops
{
    /// <summary>State-space dual (SSD) scan: the recurrence at the heart of Mamba-2, worked out chunk by chunk.</summary>
    /// <param name="x">[B, L, H, P].</param>
    /// <param name="dt">[B, L, H], before softplus.</param>
    /// <param name="A">[H], Float32, negative for a decaying state; or its logarithm, see <see cref="SsdScanOptions.HasLogA"/>.</param>
    /// <param name="B">[B, L, G, N]; heads h·G/H.. share one group.</param>
    /// <param name="C">[B, L, G, N].</param>
    /// <param name="D">[H] or [H, P], Float32, the skip; or null.</param>
    /// <param name="z">[B, L, H, P], a gate: y is multiplied by silu(z); or null.</param>
    /// <param name="dtBias">[H], Float32, added to dt; or null.</param>
    /// <param name="initialState">[B, H, P, N], Float32, or null for zeros; with packed sequences one per sequence, [n, H, P, N].</param>
    /// <param name="options">Softplus, limits of Δ, chunk length, packed sequences.</param>
    /// <returns>y [B, L, H, P] and the final state, of the shape of the initial one.</returns>
    /// <remarks>
    /// Δ = clamp(softplus(dt + bias)), S_t = exp(Δ_t·A)·S_{t-1} + Δ_t·x_t·B_tᵀ, y_t = S_t·C_t + D·x_t. For A ≤ 0 no exponent is positive.
    /// Packed sequences have the bits of each alone. So have rows of a batch, but for the gradients of B and C on CUDA, sums over heads that round by how many heads share a block there.
    /// Dao and Gu 2024, arXiv:2405.21060, section 6.
    /// </remarks>
    public static (Tensor Y, Tensor FinalState) SsdScan(
        Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D = null, Tensor? z = null, Tensor? dtBias = null, Tensor? initialState = null, SsdScanOptions? options = null)
    {
        options ??= new SsdScanOptions();
        var shape = new ShapeContract(nameof(SsdScan));
        shape.Require(x, "B L H P");
        shape.Require(dt, "B L H");
        shape.RequireFloat32(A, "H");
        shape.Require(B, "B L G N");
        shape.Require(C, "B L G N");
        shape.OptionalFloat32(D, D?.Rank == 1 ? "H" : "H P");
        shape.Optional(z, "B L H P");
        shape.OptionalFloat32(dtBias, "H");
        shape.Require(shape['G'] > 0 && shape['H'] % shape['G'] == 0, $"G = {shape['G']} does not divide H = {shape['H']}.");
        options.Require(shape);
        long sequences = options.Layout?.Count ?? shape['B'];
        long[] stateShape = [sequences, shape['H'], shape['P'], shape['N']];
        shape.OptionalStates(initialState, stateShape);

        options = options with { ChunkLength = x.Backend.SsdChunkLength(options.ChunkLength, shape['L'], shape['P'], shape['N']) };
        using TensorScope scope = TensorScope.Enter();
        var inputs = new SsdScanInputs(
            x.WithDenseInner(1), dt.WithDenseInner(1), A.Contiguous(), B.WithDenseInner(1), C.WithDenseInner(1), D?.Contiguous(), z?.WithDenseInner(1), dtBias?.Contiguous(), initialState?.Contiguous(), options);
        Tensor y = Tensor.Empty(x.Shape, x.DType, x.Device);
        Tensor finalState = Tensor.Empty(stateShape, DType.Float32, x.Device);
        if (!inputs.IsTracked())
        {
            x.Backend.SsdScanForward(inputs, y, finalState, null, null);
            return (scope.Keep(y), scope.Keep(finalState));
        }
        Tensor states = x.Backend.SsdStates(inputs);
        Tensor? ungated = z is null ? null : Tensor.EmptyLike(y);
        x.Backend.SsdScanForward(inputs, y, finalState, states, ungated);
        RecordSsdScan(inputs, y, finalState, states, ungated);
        return (scope.Keep(y), scope.Keep(finalState));
    }

    private static void RecordSsdScan(SsdScanInputs x, Tensor y, Tensor finalState, Tensor states, Tensor? ungated) => Tape.Record(
        [y, finalState], [x.X, x.Dt, x.A, x.B, x.C, x.D, x.Z, x.DtBias, x.InitialState],
        [x.X, x.Dt, x.A, x.B, x.C, x.D, x.Z, x.DtBias, states, ungated], dOutputs =>
        {
            Tensor dy = dOutputs[0]?.Contiguous() ?? Tensor.Zeros(x.X.Shape, x.X.DType, x.X.Device);
            SsdScanInputs d = x.EmptyLike();
            x.X.Backend.SsdScanBackward(x, states, ungated, dy, dOutputs[1]?.Contiguous(), d);
            return [d.X, d.Dt, d.A, d.B, d.C, d.D, d.Z, d.DtBias, d.InitialState];
        });

    /// <summary>What stands between the projections of a Mamba-2 layer: causal convolution with silu, SSD scan, gate and norm.</summary>
    /// <param name="projected">[B, L, 2·H·P + 2·G·N + H], rows [z; x; B; C; dt].</param>
    /// <param name="A">[H], Float32, negative for a decaying state; or its logarithm, see <see cref="SsdScanOptions.HasLogA"/>.</param>
    /// <param name="weight">[D, 1, K], Float32, the taps of the convolution's D = H·P + 2·G·N channels.</param>
    /// <param name="norm">[H·P], Float32, weight of the norm.</param>
    /// <param name="options">Groups, norm, scan.</param>
    /// <param name="bias">[D], Float32, of the convolution; or null.</param>
    /// <param name="D">[H], Float32, the skip; or null.</param>
    /// <param name="dtBias">[H], Float32, added to dt; or null.</param>
    /// <param name="convState">[B, K-1, D], Float32, or null for zeros; with packed sequences one per sequence.</param>
    /// <param name="scanState">[B, H, P, N], Float32, or null for zeros; with packed sequences one per sequence.</param>
    /// <remarks>
    /// The numbers are those of <see cref="CausalConv1d"/>, <see cref="SsdScan"/> and <see cref="RmsNorm"/> with the gate before the norm, one after the other. On
    /// CUDA the convolution of x is part of the scan where the sequences are enough to fill the device and there are at most 4 taps, to the same bits; with gradients what it makes is
    /// kept, without them it is never written. Where the norm's factor is left to others, a packed sequence of one step is walked as a chunk is, and its factor is left too: alone neither
    /// would be, which rounds otherwise; and where rows of projected are no whole accesses of 16 bytes, the norm of a single row may add in another order than that of several. The gradient of projected is written into one buffer by the ops that make its parts. Dao and Gu 2024, arXiv:2405.21060, section 7.
    /// </remarks>
    public static Mamba2ScanResult Mamba2Scan(
        Tensor projected, Tensor A, Tensor weight, Tensor norm, Mamba2ScanOptions options, Tensor? bias = null, Tensor? D = null, Tensor? dtBias = null, Tensor? convState = null, Tensor? scanState = null)
    {
        ArgumentNullException.ThrowIfNull(options);
        var shape = new ShapeContract(nameof(Mamba2Scan));
        shape.Require(projected, "B L width");
        shape.RequireFloat32(A, "H");
        shape.RequireFloat32(weight, "D 1 K");
        shape.RequireFloat32(norm, "inner");
        shape.OptionalFloat32(bias, "D");
        shape.OptionalFloat32(D, "H");
        shape.OptionalFloat32(dtBias, "H");
        SsdScanOptions scan = options.Scan ?? new SsdScanOptions();
        (long heads, long inner, long channels, long groups) = (shape['H'], norm.Shape[0], shape['D'], options.Groups);
        shape.Require(shape['K'] >= 1, "weight must have at least one tap.");
        shape.Require(groups > 0 && heads % groups == 0, $"G = {groups} does not divide H = {heads}.");
        shape.Require(heads > 0 && inner % heads == 0, $"H = {heads} does not divide the norm's H·P = {inner}.");
        shape.Require(channels >= inner && (channels - inner) % (2 * groups) == 0, $"weight has D = {channels} channels, which are not H·P + 2·G·N with H·P = {inner} and G = {groups}.");
        shape.Require(projected.Shape[2] == inner + channels + heads, $"projected {Tensor.ShapeText(projected.Shape)} must have rows of H·P + D + H = {inner + channels + heads}.");
        long normGroup = options.NormGroupSize == 0 ? inner : options.NormGroupSize;
        shape.Require(normGroup > 0 && inner % normGroup == 0, $"NormGroupSize {normGroup} does not divide H·P = {inner}.");
        scan.Require(shape);
        long sequences = scan.Layout?.Count ?? shape['B'], states = (channels - inner) / (2 * groups);
        shape.OptionalStates(convState, [sequences, shape['K'] - 1, channels]);
        shape.OptionalStates(scanState, [sequences, heads, inner / heads, states]);

        Tensor?[] inputs = [projected, A, weight, norm, bias, D, dtBias, convState, scanState];
        bool isTracked = TapeState.Current is { } tape && tape.TracksAny(inputs);
        using TensorScope scope = TensorScope.Enter();
        Mamba2Pass pass;
        using (Tape.NoGrad()) pass = new Mamba2Pass(inputs, options with { NormGroupSize = normGroup, Scan = scan }, isTracked);
        if (isTracked) pass.Record(inputs);
        return new Mamba2ScanResult(scope.Keep(pass.Y), pass.Squares is null ? null : new RowScale(scope.Keep(pass.Squares), inner, options.NormEpsilon), scope.Keep(pass.ConvState), scope.Keep(pass.ScanState));
    }
}

/// <summary>The last axis of x, dt, B, C and z is dense; their other axes may have any strides. All other tensors are contiguous.</summary>
internal sealed record SsdScanInputs(Tensor X, Tensor Dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? Z, Tensor? DtBias, Tensor? InitialState, SsdScanOptions Options)
{
    /// <summary>Chunks of all sequences; no chunk crosses a boundary.</summary>
    public long Chunks() => SequenceLayout.Stretches(Options.Layout, X.Shape[0], X.Shape[1], Options.ChunkLength);

    public bool IsTracked() => TapeState.Current is { } tape && tape.TracksAny([X, Dt, A, B, C, D, Z, DtBias, InitialState]);

    public SsdScanInputs EmptyLike() => new(
        Tensor.EmptyLike(X), Tensor.EmptyLike(Dt), Tensor.EmptyLike(A), Tensor.EmptyLike(B), Tensor.EmptyLike(C), Tensor.EmptyLikeOrNull(D), Tensor.EmptyLikeOrNull(Z), Tensor.EmptyLikeOrNull(DtBias), Tensor.EmptyLikeOrNull(InitialState), Options);
}

/// <summary>With z: y is multiplied by <see cref="Weight"/> [H·P] behind the gate, and sums of squares before that are left in <see cref="Squares"/> [B, L, parts].</summary>
internal sealed record SsdGate(Tensor Weight, Tensor Squares);

/// <summary>
/// x passes a convolution with silu on its way into the scan: <see cref="Convolution"/> has it before that as X [B, L, H·P] and leaves its last inputs in <see cref="FinalState"/>;
/// where given, <see cref="Convolved"/> [B, L, H·P], contiguous, takes what the scan worked with. States may be parts of wider ones, of the same strides.
/// </summary>
internal sealed record SsdInput(CausalConv1dInputs Convolution, Tensor FinalState, Tensor? Convolved);

public abstract partial class Backend
{
    /// <summary>Whether the device's scan of such inputs takes an <see cref="SsdInput"/>: the same bits as a convolution before it, for less memory.</summary>
    internal virtual bool SsdConvolves(SsdScanInputs x, long taps) => false;

    /// <summary>In how many parts a row's squares are left, see <see cref="SsdGate"/>.</summary>
    internal abstract long SsdSquares(SsdScanInputs x);

    /// <summary>The chunk length that the device works with: the one asked for, as far as its tiles hold it; for 0 the one that suits it.</summary>
    internal abstract long SsdChunkLength(long wanted, long length, long headDimension, long states);

    /// <summary>Memory for the states [borders, H, N, P] that a device keeps for the backward pass: before every chunk, or fewer of them, no wider than its products read them.</summary>
    internal virtual Tensor SsdStates(SsdScanInputs x) => Tensor.Empty([x.Chunks(), x.X.Shape[2], x.B.Shape[3], x.X.Shape[3]], DType.Float32, x.X.Device);

    /// <summary>
    /// Writes y and the final states; where given, also the states [N, P] of <see cref="SsdStates"/> at borders of chunks, and y before the gate. With <paramref name="input"/>, which
    /// <see cref="SsdConvolves"/> must allow, x is that before the convolution.
    /// </summary>
    internal abstract void SsdScanForward(SsdScanInputs x, Tensor y, Tensor finalState, Tensor? states, Tensor? ungated, SsdGate? gate = null, SsdInput? input = null);

    /// <summary>Overwrites <paramref name="d"/> with the gradients of <paramref name="x"/>: all contiguous, but steps of x, dt, B and C may be parts of wider rows.</summary>
    internal abstract void SsdScanBackward(SsdScanInputs x, Tensor states, Tensor? ungated, Tensor dy, Tensor? dFinalState, SsdScanInputs d);
}
