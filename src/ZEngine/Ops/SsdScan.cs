namespace ZEngine;

/// <summary>How the state-space dual scan treats its input.</summary>
/// <param name="HasSoftplus">Whether softplus turns dt (+ bias) into Δ.</param>
/// <param name="MinDelta">Δ is at least this, after softplus.</param>
/// <param name="MaxDelta">Δ is at most this, after softplus.</param>
/// <param name="ChunkLength">Q, steps that are worked out as one matrix product; 0 lets the device choose, which also takes fewer where its tiles hold fewer. The result does not depend on it, up to rounding.</param>
/// <param name="Layout">Boundaries of packed sequences, or null.</param>
public sealed record SsdScanOptions(bool HasSoftplus = true, float MinDelta = float.NegativeInfinity, float MaxDelta = float.PositiveInfinity, long ChunkLength = 0, SequenceLayout? Layout = null);

public static partial class Ops
{
    /// <summary>State-space dual (SSD) scan: the recurrence at the heart of Mamba-2, worked out chunk by chunk.</summary>
    /// <param name="x">[B, L, H, P].</param>
    /// <param name="dt">[B, L, H], before softplus.</param>
    /// <param name="A">[H], Float32, negative for a decaying state.</param>
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
        shape.RequireLayout(options.Layout);
        shape.Require(options.ChunkLength is >= 0 and <= 4096, $"ChunkLength must be from 0 to 4096, got {options.ChunkLength}.");
        shape.Require(options.MinDelta <= options.MaxDelta, $"MinDelta {options.MinDelta} is above MaxDelta {options.MaxDelta}.");
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
}

/// <summary>The last axis of x, dt, B, C and z is dense; their other axes may have any strides. All other tensors are contiguous.</summary>
internal sealed record SsdScanInputs(Tensor X, Tensor Dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? Z, Tensor? DtBias, Tensor? InitialState, SsdScanOptions Options)
{
    /// <summary>Chunks of all sequences; no chunk crosses a boundary.</summary>
    public long Chunks()
    {
        long length = Options.ChunkLength;
        if (Options.Layout is not { } layout) return X.Shape[0] * ((X.Shape[1] + length - 1) / length);
        long chunks = 0;
        for (int i = 0; i < layout.Count; i++) chunks += (layout.End(i) - layout.Start(i) + length - 1) / length;
        return chunks;
    }

    public bool IsTracked() => TapeState.Current is { } tape && tape.TracksAny([X, Dt, A, B, C, D, Z, DtBias, InitialState]);

    public SsdScanInputs EmptyLike() => new(
        Like(X)!, Like(Dt)!, Like(A)!, Like(B)!, Like(C)!, Like(D), Like(Z), Like(DtBias), Like(InitialState), Options);

    private static Tensor? Like(Tensor? tensor) => tensor is null ? null : Tensor.Empty(tensor.Shape, tensor.DType, tensor.Device);
}

public abstract partial class Backend
{
    /// <summary>The chunk length that the device works with: the one asked for, as far as its tiles hold it; for 0 the one that suits it.</summary>
    internal abstract long SsdChunkLength(long wanted, long length, long headDimension, long states);

    /// <summary>Memory for the states [borders, H, N, P] that a device keeps for the backward pass: before every chunk, or fewer of them, no wider than its products read them.</summary>
    internal virtual Tensor SsdStates(SsdScanInputs x) => Tensor.Empty([x.Chunks(), x.X.Shape[2], x.B.Shape[3], x.X.Shape[3]], DType.Float32, x.X.Device);

    /// <summary>Writes y and the final states; where given, also the states [N, P] of <see cref="SsdStates"/> at borders of chunks, and y before the gate.</summary>
    internal abstract void SsdScanForward(SsdScanInputs x, Tensor y, Tensor finalState, Tensor? states, Tensor? ungated);

    /// <summary>Overwrites <paramref name="d"/> (all contiguous) with the gradients of <paramref name="x"/>.</summary>
    internal abstract void SsdScanBackward(SsdScanInputs x, Tensor states, Tensor? ungated, Tensor dy, Tensor? dFinalState, SsdScanInputs d);
}
