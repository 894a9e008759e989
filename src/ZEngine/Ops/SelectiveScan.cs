namespace ZEngine;

public static partial class Ops
{
    /// <summary>Selective state-space scan (S6): the recurrence at the heart of Mamba, walked in time with one state per channel.</summary>
    /// <param name="u">[B, L, D].</param>
    /// <param name="dt">[B, L, D], before softplus.</param>
    /// <param name="A">[D, N], Float32, negative for a decaying state.</param>
    /// <param name="B">[B, L, G, N]; channel d uses group ⌊d·G/D⌋.</param>
    /// <param name="C">[B, L, G, N].</param>
    /// <param name="D">[D], Float32, the skip; or null.</param>
    /// <param name="z">[B, L, D], a gate: y is multiplied by silu(z); or null.</param>
    /// <param name="dtBias">[D], Float32, added to dt; or null.</param>
    /// <param name="initialState">[B, D, N], Float32, or null for zeros; with packed sequences one per sequence, [n, D, N].</param>
    /// <param name="hasSoftplus">Whether softplus turns dt (+ bias) into Δ.</param>
    /// <param name="layout">Boundaries of packed sequences, or null.</param>
    /// <param name="hasLogA">Whether <paramref name="A"/> holds ln(-A), as models keep it.</param>
    /// <returns>y [B, L, D] and the final state, of the shape of the initial one.</returns>
    /// <remarks>
    /// Δ = softplus(dt + bias), h_t = exp(Δ_t·A) ⊙ h_{t-1} + Δ_t·u_t·B_t, y_t = (h_t·C_t + D·u_t)·silu(z_t). States are kept at a few steps
    /// and worked out again between them for the gradient. The same inputs give the same bits, on every CUDA device. There few channels and long sequences are walked in segments at once, which join by
    /// the product of their decays: then a sequence cut in two has not the bits of the whole, a row of a batch not always those of the row alone, as the segments go by B too, and the error
    /// against float64 is at most twice that of a walk in one. A packed sequence has the bits, and the gradients, that it has alone. Gu and Dao 2023, arXiv:2312.00752, section 3.2 and algorithm 2.
    /// </remarks>
    public static (Tensor Y, Tensor FinalState) SelectiveScan(
        Tensor u, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D = null, Tensor? z = null, Tensor? dtBias = null, Tensor? initialState = null,
        bool hasSoftplus = true, SequenceLayout? layout = null, bool hasLogA = false)
    {
        var shape = new ShapeContract(nameof(SelectiveScan));
        shape.Require(u, "B L D");
        shape.Require(dt, "B L D");
        shape.RequireFloat32(A, "D N");
        shape.Require(B, "B L G N");
        shape.Require(C, "B L G N");
        shape.OptionalFloat32(D, "D");
        shape.Optional(z, "B L D");
        shape.OptionalFloat32(dtBias, "D");
        shape.Require(shape['G'] > 0 && shape['D'] % shape['G'] == 0, $"G = {shape['G']} does not divide D = {shape['D']}.");
        shape.RequireLayout(layout);
        long[] stateShape = [layout?.Count ?? shape['B'], shape['D'], shape['N']];
        shape.OptionalStates(initialState, stateShape);

        using TensorScope scope = TensorScope.Enter();
        if (hasLogA && (Tape.IsRecording || layout is not null || !u.Backend.ScansWithLogarithm(shape['L'])))
            (A, hasLogA) = (Scale(Map(Pointwise.Exp, A), -1), false);
        var inputs = new SelectiveScanInputs(
            u.WithDenseInner(1), dt.WithDenseInner(1), A.Contiguous(), B.WithDenseInner(1), C.WithDenseInner(1), D?.Contiguous(), z?.WithDenseInner(1), dtBias?.Contiguous(), initialState?.Contiguous(), hasSoftplus, layout, hasLogA);
        Tensor y = Tensor.Empty(u.Shape, u.DType, u.Device);
        Tensor finalState = Tensor.Empty(stateShape, DType.Float32, u.Device);
        if (!inputs.IsTracked())
        {
            u.Backend.SelectiveScanForward(inputs, y, finalState, null);
            return (scope.Keep(y), scope.Keep(finalState));
        }
        Tensor states = Tensor.Empty([inputs.Stretches(u.Backend.SelectiveScanStretch), shape['N'], shape['D']], DType.Float32, u.Device);
        u.Backend.SelectiveScanForward(inputs, y, finalState, states);
        RecordSelectiveScan(inputs, y, finalState, states);
        return (scope.Keep(y), scope.Keep(finalState));
    }

    private static void RecordSelectiveScan(SelectiveScanInputs x, Tensor y, Tensor finalState, Tensor states) => Tape.Record(
        [y, finalState], [x.U, x.Dt, x.A, x.B, x.C, x.D, x.Z, x.DtBias, x.InitialState],
        [x.U, x.Dt, x.A, x.B, x.C, x.D, x.Z, x.DtBias, states], dOutputs =>
        {
            Tensor dy = dOutputs[0]?.Contiguous() ?? Tensor.Zeros(x.U.Shape, x.U.DType, x.U.Device);
            SelectiveScanInputs d = x.EmptyLike();
            x.U.Backend.SelectiveScanBackward(x, states, dy, dOutputs[1]?.Contiguous(), d);
            return [d.U, d.Dt, d.A, d.B, d.C, d.D, d.Z, d.DtBias, d.InitialState];
        });
}

/// <summary>The last axis of u, dt, B, C and z is dense; their other axes may have any strides. All other tensors are contiguous.</summary>
internal sealed record SelectiveScanInputs(
    Tensor U, Tensor Dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? Z, Tensor? DtBias, Tensor? InitialState, bool HasSoftplus, SequenceLayout? Layout, bool HasLogA)
{
    /// <summary>Stretches of all sequences, each at most <paramref name="steps"/> long; none crosses a boundary.</summary>
    public long Stretches(long steps) => SequenceLayout.Stretches(Layout, U.Shape[0], U.Shape[1], steps);

    public bool IsTracked() => TapeState.Current is { } tape && tape.TracksAny([U, Dt, A, B, C, D, Z, DtBias, InitialState]);

    public SelectiveScanInputs EmptyLike() => new(
        Tensor.EmptyLike(U), Tensor.EmptyLike(Dt), Tensor.EmptyLike(A), Tensor.EmptyLike(B), Tensor.EmptyLike(C), Tensor.EmptyLikeOrNull(D), Tensor.EmptyLikeOrNull(Z), Tensor.EmptyLikeOrNull(DtBias), Tensor.EmptyLikeOrNull(InitialState), HasSoftplus, Layout, HasLogA);
}

public abstract partial class Backend
{
    /// <summary>Whether a forward scan of so many steps, not packed, can be given ln(-A): where A is read once, it need not be written before.</summary>
    internal virtual bool ScansWithLogarithm(long length) => false;

    /// <summary>Steps from one kept state to the next.</summary>
    internal abstract long SelectiveScanStretch { get; }

    /// <summary>Writes y and the final states; where given, also the state [N, D] at the start of every stretch.</summary>
    internal abstract void SelectiveScanForward(SelectiveScanInputs x, Tensor y, Tensor finalState, Tensor? states);

    /// <summary>Overwrites <paramref name="d"/> (all contiguous) with the gradients of <paramref name="x"/>.</summary>
    internal abstract void SelectiveScanBackward(SelectiveScanInputs x, Tensor states, Tensor dy, Tensor? dFinalState, SelectiveScanInputs d);
}
