namespace ZEngine;

public static partial class Ops
{
    /// <summary>Mixture of experts: each token passes through the MLPs it was routed to, and their outputs add up by weight. No token is dropped.</summary>
    /// <param name="x">[..., D]; all leading axes together are the tokens.</param>
    /// <param name="routing">Which experts, and how much each counts.</param>
    /// <param name="up">[E, 2·hidden, D], rows of the gate first, then those of up; or [E, hidden, D] for experts without a gate. Of any floating-point type.</param>
    /// <param name="down">[E, D, hidden].</param>
    /// <param name="function">The activation f.</param>
    /// <param name="isGated">Whether the hidden layer is f(gate)·up, else f(up).</param>
    /// <param name="skipped">How many of the routing's last experts have no weights and put out nothing.</param>
    /// <returns>[..., D].</returns>
    /// <exception cref="ArgumentException">The routing names an expert that does not exist (on the CPU).</exception>
    /// <remarks>
    /// y = Σ_k w_k·down_e(f(gate_e·x) ⊙ up_e·x), summed in the order of the slots. Gate and up are one matrix, as checkpoints since
    /// transformers 5 store them, because one product then reads the tokens once. Jiang et al. 2024, arXiv:2401.04088, section 2.1.
    /// </remarks>
    public static Tensor GroupedExperts(Tensor x, Routing routing, Tensor up, Tensor down, Pointwise function = Pointwise.Silu, bool isGated = true, long skipped = 0)
    {
        ArgumentNullException.ThrowIfNull(routing);
        var contract = new ShapeContract(nameof(GroupedExperts));
        contract.Require(x, "... D");
        RequireExperts(ref contract, up, down, function, isGated);
        RequireRouting(contract, routing, x.Count / Math.Max(1, contract['D']), contract['E'], skipped);

        using TensorScope scope = TensorScope.Enter();
        var inputs = new GroupedExpertsInputs(x.Contiguous(), routing.Experts.Contiguous(), routing.Weights.Contiguous(), up.Contiguous(), down.Contiguous(), function, isGated, skipped);
        Tensor y = Tensor.Empty(x.Shape, x.DType, x.Device);
        Tensor hidden = Tensor.Empty([routing.Weights.Count, up.Shape[1]], x.DType, x.Device);
        x.Backend.GroupedExpertsForward(inputs, hidden, y);
        return scope.Keep(Tape.IsRecording ? RecordGroupedExperts(inputs, hidden, y) : y);
    }

    /// <summary>A whole layer of experts with a linear router.</summary>
    /// <param name="x">[..., D].</param>
    /// <param name="router">[E, D], of any floating-point type.</param>
    /// <param name="up">[E, 2·hidden, D] or [E, hidden, D], see <see cref="GroupedExperts"/>.</param>
    /// <param name="down">[E, D, hidden].</param>
    /// <param name="options">How many experts, and how they are weighted.</param>
    /// <param name="function">The activation.</param>
    /// <param name="isGated">Whether the experts have a gate.</param>
    /// <returns>y [..., D] and the two losses of the router, see <see cref="Routing"/>.</returns>
    public static (Tensor Y, Tensor AuxLoss, Tensor ZLoss) Moe(Tensor x, Tensor router, Tensor up, Tensor down, RouteOptions options, Pointwise function = Pointwise.Silu, bool isGated = true)
    {
        var contract = new ShapeContract(nameof(Moe));
        contract.Require(x, "... D");
        contract.RequireWeight(router, "E D");
        RequireExperts(ref contract, up, down, function, isGated);
        using TensorScope scope = TensorScope.Enter();
        Routing routing = Route(Linear(x, router), options);
        return (scope.Keep(GroupedExperts(x, routing, up, down, function, isGated)), scope.Keep(routing.AuxLoss), scope.Keep(routing.ZLoss));
    }

    private static void RequireExperts(ref ShapeContract contract, Tensor up, Tensor down, Pointwise function, bool isGated)
    {
        contract.RequireWeight(down, "E D hidden");
        contract.RequireWeight(up, "E rows D");
        long hiddenRows = (isGated ? 2 : 1) * down.Shape[2];
        contract.Require(up.Shape[1] == hiddenRows, $"up must have {hiddenRows} rows for {down.Shape[2]} hidden channels {(isGated ? "with" : "without")} a gate, got {Tensor.ShapeText(up.Shape)}.");
        if (isGated) RequireGate(contract, function);
    }

    private static void RequireRouting(ShapeContract contract, Routing routing, long tokens, long experts, long skipped)
    {
        (Tensor chosen, Tensor weights) = (routing.Experts, routing.Weights);
        contract.RequireIndex(routing.Experts, "...");
        contract.RequireFloat32(routing.Weights, "...");
        contract.RequireFloat32(routing.Load, "experts");
        contract.Require(chosen.DType == DType.Int32 && chosen.Rank == 2 && weights.Shape.SequenceEqual(chosen.Shape), $"routing.Experts must be Int32 [tokens, slots] and routing.Weights of that shape, got {chosen} and {weights}.");
        contract.Require(chosen.Shape[0] == tokens, $"routing.Experts {Tensor.ShapeText(chosen.Shape)} is for {chosen.Shape[0]} tokens, but x has {tokens}.");
        contract.Require(skipped >= 0 && routing.Load.Count - skipped == experts, $"routing.Load knows {routing.Load.Count} experts, {skipped} of them skipped, but there are weights for {experts}.");
    }

    private static Tensor RecordGroupedExperts(GroupedExpertsInputs x, Tensor hidden, Tensor y) => Tape.Record(
        y, [x.X, x.Weights, x.Up, x.Down], [x.X, x.Experts, x.Weights, x.Up, x.Down, hidden], dy =>
        {
            Tensor dX = Tensor.EmptyLike(x.X), dWeights = Tensor.EmptyLike(x.Weights);
            Tensor dUp = Tensor.Empty(x.Up.Shape, DType.Float32, dy.Device), dDown = Tensor.Empty(x.Down.Shape, DType.Float32, dy.Device);
            dy.Backend.GroupedExpertsBackward(x, hidden, dy.Contiguous(), dX, dWeights, dUp, dDown);
            return [dX, dWeights, dUp, dDown];
        });
}

/// <summary>All contiguous. Experts [tokens, slots] is Int32; those beyond the weights put out nothing.</summary>
internal sealed record GroupedExpertsInputs(Tensor X, Tensor Experts, Tensor Weights, Tensor Up, Tensor Down, Pointwise Function, bool IsGated, long Skipped);

public abstract partial class Backend
{
    /// <summary>Writes y, and the hidden layer before its activation, one row per token and slot, sorted by expert and then by token.</summary>
    internal abstract void GroupedExpertsForward(GroupedExpertsInputs x, Tensor hidden, Tensor y);

    /// <summary>Overwrites the gradients; those of the weights are Float32.</summary>
    internal abstract void GroupedExpertsBackward(GroupedExpertsInputs x, Tensor hidden, Tensor dy, Tensor dX, Tensor dWeights, Tensor dUp, Tensor dDown);
}
