namespace ZEngine;

public static partial class Ops
{
    /// <summary>Causal depthwise convolution over time.</summary>
    /// <param name="x">[B, L, D].</param>
    /// <param name="weight">[D, K], Float32; the last tap meets the current step.</param>
    /// <param name="bias">[D], Float32, or null.</param>
    /// <param name="hasSilu">Whether silu follows.</param>
    /// <param name="initialState">[B, K-1, D]: the last K - 1 inputs before this call, or null for zeros. With <paramref name="layout"/> one per sequence: [n, K-1, D].</param>
    /// <param name="layout">Boundaries of packed sequences, or null.</param>
    /// <returns>y [B, L, D] and the final state, of the shape of the initial one.</returns>
    /// <remarks>y[t, d] = f(bias[d] + Σₖ weight[d, k] · x[t - K + 1 + k, d]).</remarks>
    public static (Tensor Y, Tensor FinalState) CausalConv1d(Tensor x, Tensor weight, Tensor? bias = null, bool hasSilu = false, Tensor? initialState = null, SequenceLayout? layout = null)
    {
        var contract = new ShapeContract(nameof(CausalConv1d));
        contract.Require(x, "B L D");
        contract.RequireFloat32(weight, "D K");
        contract.OptionalFloat32(bias, "D");
        contract.Require(contract['K'] >= 1, "weight must have at least one tap.");
        contract.RequireLayout(layout);
        long sequences = layout?.Count ?? contract['B'];
        contract.OptionalStates(initialState, [sequences, contract['K'] - 1, contract['D']]);

        using TensorScope scope = TensorScope.Enter();
        var inputs = new CausalConv1dInputs(x.WithDenseInner(1), weight.Contiguous(), bias?.Contiguous(), initialState?.Contiguous(), hasSilu, layout);
        Tensor y = Tensor.Empty(x.Shape, x.DType, x.Device);
        Tensor finalState = Tensor.Empty([sequences, contract['K'] - 1, contract['D']], DType.Float32, x.Device);
        x.Backend.CausalConv1dForward(inputs, y, finalState);
        if (Tape.IsRecording) RecordCausalConv1d(inputs, y, finalState);
        return (scope.Keep(y), scope.Keep(finalState));
    }

    private static void RecordCausalConv1d(CausalConv1dInputs x, Tensor y, Tensor finalState) => Tape.Record(
        [y, finalState], [x.X, x.Weight, x.Bias, x.InitialState], [x.X, x.Weight, x.Bias, x.InitialState], dOutputs =>
        {
            Tensor dy = dOutputs[0]?.Contiguous() ?? Tensor.Zeros(x.X.Shape, x.X.DType, x.X.Device);
            CausalConv1dInputs d = x with
            {
                X = Tensor.Empty(x.X.Shape, x.X.DType, x.X.Device),
                Weight = Tensor.EmptyLike(x.Weight),
                Bias = x.Bias is null ? null : Tensor.EmptyLike(x.Bias),
                InitialState = x.InitialState is null ? null : Tensor.EmptyLike(x.InitialState),
            };
            x.X.Backend.CausalConv1dBackward(x, dy, dOutputs[1]?.Contiguous(), d, null);
            return [d.X, d.Weight, d.Bias, d.InitialState];
        });
}

/// <summary>The channels of x are dense; its batch and time axes may have any strides. Forward, states may be channels of wider ones.</summary>
internal readonly record struct CausalConv1dInputs(Tensor X, Tensor Weight, Tensor? Bias, Tensor? InitialState, bool HasSilu, SequenceLayout? Layout)
{
    /// <summary>Some of the channels.</summary>
    public CausalConv1dInputs Channels(long first, long count) => this with
    {
        X = X.Slice(2, first, count), Weight = Weight.Slice(0, first, count), Bias = Bias?.Slice(0, first, count), InitialState = InitialState?.Slice(2, first, count),
    };
}

public abstract partial class Backend
{
    /// <summary>Writes y [B, L, D] and the last K-1 inputs of every sequence, whose state has the strides of the initial one.</summary>
    internal abstract void CausalConv1dForward(CausalConv1dInputs x, Tensor y, Tensor finalState);

    /// <summary>Overwrites <paramref name="d"/> with the gradients of <paramref name="x"/>; rows of d.X may be parts of wider rows. <paramref name="sums"/> may take the last sums.</summary>
    internal abstract void CausalConv1dBackward(CausalConv1dInputs x, Tensor dy, Tensor? dFinalState, CausalConv1dInputs d, PartialSums? sums);
}
