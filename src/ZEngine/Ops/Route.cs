namespace ZEngine;

/// <summary>How router logits become the scores of the experts.</summary>
public enum RouterScore
{
    /// <summary>softmax over the experts.</summary>
    Softmax,
    /// <summary>A sigmoid for each expert by itself.</summary>
    Sigmoid,
}

/// <summary>How tokens choose experts.</summary>
/// <param name="TopK">Experts per token.</param>
/// <param name="Normalize">Whether the weights of a token's experts are divided by their sum.</param>
/// <param name="Score">How logits become scores.</param>
/// <param name="Scale">Factor on the weights, after normalisation.</param>
public sealed record RouteOptions(long TopK, bool Normalize = true, RouterScore Score = RouterScore.Softmax, float Scale = 1);

/// <summary>Which experts each token goes to, how much each counts, and the losses that keep the load even.</summary>
/// <param name="Experts">[tokens, slots], Int32: the chosen experts, best first.</param>
/// <param name="Weights">[tokens, slots], Float32: what the output of each is multiplied with; differentiable.</param>
/// <param name="Load">[E], Float32: how many tokens chose each expert, divided by the number of tokens; adds up to the slots.</param>
/// <param name="AuxLoss">[], Float32: E·Σ_e load_e·mean(score_e), differentiable through the scores; equals the slots when all is even.</param>
/// <param name="ZLoss">[], Float32: the mean of the squared log-sum-exp of the logits; differentiable.</param>
public sealed record Routing(Tensor Experts, Tensor Weights, Tensor Load, Tensor AuxLoss, Tensor ZLoss);

public static partial class Ops
{
    /// <summary>Sends every token to its best experts; none is dropped.</summary>
    /// <param name="logits">[..., E], what the router says; all leading axes together are the tokens.</param>
    /// <param name="options">How many experts, and how they are weighted.</param>
    /// <param name="selectionBias">[E], Float32, added to the scores for the choice alone, not for the weights; no gradient. Or null.</param>
    /// <param name="experts">[tokens, slots], Int32 or Int64: experts chosen by other means, such as Sinkhorn balancing; then only weights and losses are worked out. Or null.</param>
    /// <remarks>
    /// Scores are worked out in Float32 or better. Of equal scores the lower expert is chosen. Losses over several layers: the reference
    /// of Mixtral takes the logits of all layers as one long list of tokens. Shazeer et al. 2017, arXiv:1701.06538; losses: Fedus et al.
    /// 2021, arXiv:2101.03961, section 2.2, and Zoph et al. 2022, arXiv:2202.08906, section 3.
    /// </remarks>
    /// <exception cref="ArgumentException">A given expert does not exist (on the CPU).</exception>
    public static Routing Route(Tensor logits, RouteOptions options, Tensor? selectionBias = null, Tensor? experts = null)
    {
        ArgumentNullException.ThrowIfNull(options);
        var contract = new ShapeContract(nameof(Route));
        contract.Require(logits, "... E");
        contract.OptionalFloat32(selectionBias, "E");
        contract.Require(options.TopK > 0 && options.TopK <= contract['E'], $"TopK must be from 1 to E = {contract['E']}, got {options.TopK}.");
        contract.Require(experts is null || selectionBias is null, "a selection bias has no effect on given experts.");
        long tokens = logits.Count / contract['E'];
        if (experts is not null)
        {
            contract.RequireIndex(experts, "tokens slots");
            contract.Require(experts.Shape[0] == tokens && experts.Shape[1] == options.TopK, $"experts must be [{tokens}, {options.TopK}], got {Tensor.ShapeText(experts.Shape)}.");
        }

        using TensorScope scope = TensorScope.Enter();
        var inputs = new RouteInputs(logits.Contiguous(), selectionBias?.Contiguous(), experts?.To(DType.Int32).Contiguous(), options);
        Device device = logits.Device;
        var routing = new Routing(
            inputs.Given ?? Tensor.Empty([tokens, options.TopK], DType.Int32, device), Tensor.Empty([tokens, options.TopK], DType.Float32, device),
            Tensor.Empty([contract['E']], DType.Float32, device), Tensor.Empty([], DType.Float32, device), Tensor.Empty([], DType.Float32, device));
        logits.Backend.RouteForward(inputs, routing);
        if (Tape.Tracks(inputs.Logits)) RecordRoute(inputs, routing);
        foreach (Tensor tensor in (ReadOnlySpan<Tensor>)[routing.Experts, routing.Weights, routing.Load, routing.AuxLoss, routing.ZLoss]) scope.Keep(tensor);
        return routing;
    }

    private static void RecordRoute(RouteInputs x, Routing routing) => Tape.Record(
        [routing.Weights, routing.AuxLoss, routing.ZLoss], [x.Logits], [x.Logits, routing.Experts, routing.Load], dOutputs =>
        {
            Tensor dLogits = Tensor.EmptyLike(x.Logits);
            dLogits.Backend.RouteBackward(x, routing, dOutputs[0]?.Contiguous(), dOutputs[1], dOutputs[2], dLogits);
            return [dLogits];
        });
}

/// <summary>All contiguous; given experts are Int32.</summary>
internal readonly record struct RouteInputs(Tensor Logits, Tensor? SelectionBias, Tensor? Given, RouteOptions Options);

public abstract partial class Backend
{
    /// <summary>Fills the tensors of a routing; its experts are given or to be chosen.</summary>
    internal abstract void RouteForward(RouteInputs x, Routing routing);

    /// <summary>Overwrites dLogits; a gradient that is absent is zero.</summary>
    internal abstract void RouteBackward(RouteInputs x, Routing routing, Tensor? dWeights, Tensor? dAuxLoss, Tensor? dZLoss, Tensor dLogits);
}
