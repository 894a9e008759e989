using Call = System.Collections.Generic.IReadOnlyDictionary<string, ZEngine.Tensor>;
using Engine = ZEngine.Ops;

namespace ZEngine.Tests.Ops;

/// <summary>One valid call of every public op.</summary>
internal static class OpCalls
{
    private const string Alone = "the only tensor of the call", AnyRank = "leading axes are free", OwnSize = "nothing else has this size", Broadcast = "shapes broadcast", AnyType = "any element type will do", MayBeAbsent = "a layer may be without it";

    public static OpCall[] All { get; } =
    [
        .. Pairwise(),
        .. Reductions(),
        new OpCall("Map(function, x)", t => Engine.Map(Pointwise.Exp, t["x"])).As("Exp").Float("x", 2, 3).Allow(Alone, "x", "rank", "axis 0", "axis 1", "device"),
        new OpCall("Scale(x, factor)", t => Engine.Scale(t["x"], 2)).Float("x", 2, 3).Allow(Alone, "x", "rank", "axis 0", "axis 1", "device"),
        new OpCall("Copy(source, destination)", t => Engine.Copy(t["source"], t["destination"])).Float("source", 2, 3).Float("destination", 2, 3)
            .Allow("it converts", "source", "type").Allow("it converts", "destination", "type"),
        new OpCall("Fill(tensor, value)", t => Engine.Fill(t["tensor"], 1)).Float("tensor", 2, 3).Allow(AnyType, "tensor", "type").Allow(Alone, "tensor", "rank", "axis 0", "axis 1", "device"),
        new OpCall("Concat(axis, parts)", t => Engine.Concat(1, t["part 0"], t["part 1"])).Float("part 0", 2, 3).Float("part 1", 2, 4)
            .Allow("the axis along which they join", "part 0", "axis 1").Allow("the axis along which they join", "part 1", "axis 1"),
        new OpCall("Split(x, widths)", t => Engine.Split(t["x"], 1, 2)).Float("x", 2, 3).Allow(AnyType, "x", "type").Allow(AnyRank, "x", "rank", "axis 0").Allow(Alone, "x", "device"),
        new OpCall("MatMul(a, b, transposeA, transposeB, bias, activation)", t => Engine.MatMul(t["a"], t["b"], bias: t["bias"])).Float("a", 4, 3).Float("b", 3, 5).Float("bias", 5)
            .Allow("a stack of rows against one matrix", "a", "rank").Allow(OwnSize, "a", "axis 0"),
        new OpCall("Linear(x, weight, bias, activation)", t => Engine.Linear(t["x"], t["weight"], t["bias"])).Float("x", 4, 3).Float("weight", 5, 3).Float("bias", 5).Allow(AnyRank, "x", "rank", "axis 0"),
        new OpCall("Embedding(table, tokens)", t => Engine.Embedding(t["table"], t["tokens"])).Float("table", 7, 3).Index("tokens", 2, 4)
            .Allow(AnyRank, "tokens", "rank", "axis 0", "axis 1").Allow(OwnSize, "table", "axis 0", "axis 1"),
        new OpCall("CrossEntropy(logits, targets, options)", t => Engine.CrossEntropy(t["logits"], t["targets"])).Float("logits", 2, 3, 5).Index("targets", 2, 3).Allow(OwnSize, "logits", "axis 2"),
        new OpCall("GatedActivation(gate, up, function)", t => Engine.GatedActivation(t["gate"], t["up"], Pointwise.Silu)).Float("gate", 2, 4).Float("up", 2, 4),
        new OpCall("GatedActivation(gateUp, function)", t => Engine.GatedActivation(t["gateUp"], Pointwise.Silu)).Float("gateUp", 2, 4).Allow(AnyRank, "gateUp", "rank", "axis 0").Allow(Alone, "gateUp", "device"),
        new OpCall("RmsNorm(x, weight, epsilon, z, gateOrder, groupSize)", t => Engine.RmsNorm(t["x"], t["weight"], 1e-5f, t["z"])).Float("x", 2, 4).Float("weight", 4).Float("z", 2, 4),
        new OpCall("AddRmsNorm(x, residual, weight, epsilon, scale)", t => Engine.AddRmsNorm(t["x"], t["residual"], t["weight"], 1e-5f)).Float("x", 2, 4).Float("residual", 2, 4).Float("weight", 4),
        new OpCall("LayerNorm(x, weight, bias, epsilon)", t => Engine.LayerNorm(t["x"], t["weight"], t["bias"], 1e-5f)).Float("x", 2, 4).Float("weight", 4).Float("bias", 4).Allow(AnyRank, "x", "rank", "axis 0"),
        new OpCall("Rope(x, cosine, sine, offset, style, layout)", t => Engine.Rope(t["x"], t["cosine"], t["sine"])).Float("x", 2, 3, 2, 4).Float("cosine", 3, 2).Float("sine", 3, 2)
            .Allow(OwnSize, "x", "axis 0", "axis 2", "axis 3"),
        .. Sequences(),
        .. Attentions(),
        .. Experts(),
        .. Optimizer(),
    ];

    /// <summary>Public methods of <see cref="Engine"/> that take no tensor.</summary>
    public static string[] WithoutTensors { get; } = ["RandomNormal(shape, device, random, mean, standardDeviation)", "RandomUniform(shape, device, random, low, high)"];

    private static IEnumerable<OpCall> Pairwise()
    {
        foreach ((string name, Func<Tensor, Tensor, Tensor> op) in ((string, Func<Tensor, Tensor, Tensor>)[])
            [("Add", Engine.Add), ("Subtract", Engine.Subtract), ("Multiply", Engine.Multiply), ("Divide", Engine.Divide), ("Maximum", Engine.Maximum), ("Minimum", Engine.Minimum)])
            yield return new OpCall($"{name}(a, b)", t => op(t["a"], t["b"])).Float("a", 2, 3).Float("b", 2, 3).Allow(Broadcast, "a", "rank").Allow(Broadcast, "b", "rank");
    }

    private static IEnumerable<OpCall> Reductions()
    {
        foreach ((string name, Func<Tensor, Tensor> op) in ((string, Func<Tensor, Tensor>)[])[("Sum", Engine.Sum), ("Mean", Engine.Mean)])
            yield return new OpCall($"{name}(x)", t => op(t["x"])).Float("x", 2, 3).Allow(Alone, "x", "rank", "axis 0", "axis 1", "device");
        foreach ((string name, Func<Tensor, Tensor> op) in ((string, Func<Tensor, Tensor>)[])[("Sum", x => Engine.Sum(x, 1)), ("Mean", x => Engine.Mean(x, 1)), ("Max", x => Engine.Max(x, 1))])
            yield return new OpCall($"{name}(x, axis, keepAxis)", t => op(t["x"])).Float("x", 2, 3).Allow(Alone, "x", "rank", "axis 0", "axis 1", "device");
    }

    private static IEnumerable<OpCall> Sequences() =>
    [
        new OpCall("CausalConv1d(x, weight, bias, hasSilu, initialState, layout)", t => Engine.CausalConv1d(t["x"], t["weight"], t["bias"], initialState: t["initialState"]))
            .Float("x", 2, 5, 3).Float("weight", 3, 4).Float("bias", 3).Float("initialState", 2, 3, 3).Allow(OwnSize, "x", "axis 1"),
        new OpCall("SelectiveScan(u, dt, A, B, C, D, z, dtBias, initialState, hasSoftplus, layout, hasLogA)",
                t => Engine.SelectiveScan(t["u"], t["dt"], t["A"], t["B"], t["C"], t["D"], t["z"], t["dtBias"], t["initialState"]))
            .Float("u", 2, 5, 6).Float("dt", 2, 5, 6).Float("A", 6, 4).Float("B", 2, 5, 2, 4).Float("C", 2, 5, 2, 4).Float("D", 6).Float("z", 2, 5, 6).Float("dtBias", 6).Float("initialState", 2, 6, 4),
        new OpCall("SsdScan(x, dt, A, B, C, D, z, dtBias, initialState, options)",
                t => Engine.SsdScan(t["x"], t["dt"], t["A"], t["B"], t["C"], t["D"], t["z"], t["dtBias"], t["initialState"]))
            .Float("x", 2, 5, 4, 3).Float("dt", 2, 5, 4).Float("A", 4).Float("B", 2, 5, 2, 6).Float("C", 2, 5, 2, 6).Float("D", 4).Float("z", 2, 5, 4, 3).Float("dtBias", 4).Float("initialState", 2, 4, 3, 6),
        new OpCall("Mamba2Scan(projected, A, weight, norm, options, bias, D, dtBias, convState, scanState)",
                t => Engine.Mamba2Scan(t["projected"], t["A"], t["weight"], t["norm"], new Mamba2ScanOptions(2, 1e-5f), t["bias"], t["D"], t["dtBias"], t["convState"], t["scanState"]))
            .Float("projected", 2, 5, 52).Float("A", 4).Float("weight", 36, 1, 4).Float("norm", 12).Float("bias", 36).Float("D", 4).Float("dtBias", 4).Float("convState", 2, 3, 36).Float("scanState", 2, 4, 3, 6).Allow(OwnSize, "projected", "axis 1"),
        new OpCall("StateUpdate(x, dt, A, weight, cache, bias, D, dtBias, z, slots, options)",
                t => Engine.StateUpdate(t["x"], t["dt"], t["A"], t["weight"], new StateCache(t["cache.Convolution"], t["cache.Scan"], t["cache.Tickets"]), t["bias"], t["D"], t["dtBias"], t["z"], t["slots"]))
            .Float("x", 2, 36).Float("dt", 2, 4).Float("A", 4).Float("weight", 36, 4).Float("cache.Convolution", 3, 3, 36).Float("cache.Scan", 3, 4, 3, 6).Index("cache.Tickets", 3, 2)
            .Float("bias", 36).Float("D", 4).Float("dtBias", 4).Float("z", 2, 12).Index("slots", 2),
        new OpCall("SelectiveStateUpdate(x, layer, cache, z, slots)",
                t => Engine.SelectiveStateUpdate(t["x"], SelectiveLayer(t), new SelectiveStateCache(t["cache.Convolution"], t["cache.Scan"]), t["z"], t["slots"]))
            .Float("x", 2, 12).Float("layer.Weight", 12, 4).Float("layer.Bias", 12).Float("layer.Projection", 2, 13, 6).Float("layer.DtProjection", 12, 3).Float("layer.LogA", 12, 5).Float("layer.D", 12).Float("layer.DtBias", 12)
            .Float("cache.Convolution", 3, 3, 12).Float("cache.Scan", 3, 12, 5).Float("z", 2, 12).Index("slots", 2)
            .Allow(MayBeAbsent, "layer.Bias", "null").Allow(MayBeAbsent, "layer.D", "null").Allow(MayBeAbsent, "layer.DtBias", "null"),
    ];

    private static SelectiveStateLayer SelectiveLayer(Call t) => new(t["layer.Weight"], t["layer.Bias"], t["layer.Projection"], t["layer.DtProjection"], t["layer.LogA"], t["layer.D"], t["layer.DtBias"]);

    private static IEnumerable<OpCall> Attentions() =>
    [
        new OpCall("Attention(q, k, v, options)", t => Engine.Attention(t["q"], t["k"], t["v"])).Float("q", 2, 3, 4, 8).Float("k", 2, 5, 2, 8).Float("v", 2, 5, 2, 8).Allow("L and S are free", "q", "axis 1"),
        new OpCall("TreeAttention(q, shards, options, groupSize)", t => Engine.TreeAttention(t["q"], [(t["k"], t["v"]), (t["k of shard 1"], t["v of shard 1"])]))
            .Float("q", 1, 1, 4, 8).Float("k", 1, 5, 2, 8).Float("v", 1, 5, 2, 8).Float("k of shard 1", 1, 3, 2, 8).Float("v of shard 1", 1, 3, 2, 8)
            .Allow("L is free as long as the mask cuts through the last shard alone", "q", "axis 1").Allow("shards may lie elsewhere", "q", "device"),
        new OpCall("MergeAttention(group, o, lse)", t => Engine.MergeAttention(Communicator.Single, t["o"], t["lse"])).Float("o", 1, 2, 3, 4).Float("lse", 1, 2, 3)
            .Allow(OwnSize, "o", "axis 3"),
        new OpCall("AttentionDecode(q, k, v, cache, rotary, options)", t => Engine.AttentionDecode(t["q"], t["k"], t["v"], Cache(t), new DecodeRotary(t["rotary.Cosine"], t["rotary.Sine"], Positions: t["rotary.Positions"])))
            .Float("q", 2, 1, 4, 8).Float("k", 2, 1, 2, 8).Float("v", 2, 1, 2, 8).Add("cache.Keys", [5, 16, 2, 8], DType.Int8).Add("cache.Values", [5, 16, 2, 8], DType.Int8).Add("cache.Lengths", [2], DType.Int64)
            .Index("cache.Tickets", 2, 3).Index("cache.Pages", 2, 3).Float("cache.Scales", 5, 2, 16, 2).Float("rotary.Cosine", 9, 4).Float("rotary.Sine", 9, 4).Add("rotary.Positions", [2], DType.Int64)
            .Allow("a sequence may have any number of pages", "cache.Pages", "axis 1"),
        new OpCall("AppendKeyValues(k, v, cache)", t => Engine.AppendKeyValues(t["k"], t["v"], Cache(t)))
            .Float("k", 2, 3, 2, 8).Float("v", 2, 3, 2, 8).Float("cache.Keys", 2, 16, 2, 8).Float("cache.Values", 2, 16, 2, 8).Add("cache.Lengths", [2], DType.Int64).Index("cache.Tickets", 2, 3),
        new OpCall("ReadKeyValues(cache, length, dtype, first)", t => Engine.ReadKeyValues(Cache(t), 3, DType.Float32))
            .Float("cache.Keys", 2, 16, 2, 8).Float("cache.Values", 2, 16, 2, 8).Add("cache.Lengths", [2], DType.Int64).Index("cache.Tickets", 2, 3),
        new OpCall("MergeAttention(parts)", t => Engine.MergeAttention((t["o of part 0"], t["lse of part 0"]), (t["o of part 1"], t["lse of part 1"])))
            .Float("o of part 0", 1, 2, 3, 4).Float("lse of part 0", 1, 2, 3).Float("o of part 1", 1, 2, 3, 4).Float("lse of part 1", 1, 2, 3),
    ];

    private static DecodeCache Cache(Call t) => new(t["cache.Keys"], t["cache.Values"], t["cache.Lengths"], t["cache.Tickets"], t.GetValueOrDefault("cache.Pages"), t.GetValueOrDefault("cache.Scales"));

    private static IEnumerable<OpCall> Experts() =>
    [
        new OpCall("Route(logits, options, selectionBias, experts)", t => Engine.Route(t["logits"], new RouteOptions(2), t["selectionBias"])).Float("logits", 3, 4).Float("selectionBias", 4)
            .Allow(AnyRank, "logits", "rank", "axis 0"),
        new OpCall("Route(logits, options, selectionBias, experts)", t => Engine.Route(t["logits"], new RouteOptions(2), experts: t["experts"])).Float("logits", 3, 4).Index("experts", 3, 2)
            .Allow(AnyRank, "logits", "rank").Allow("more experts than are chosen", "logits", "axis 1"),
        new OpCall("GroupedExperts(x, routing, up, down, function, isGated, skipped)",
                t => Engine.GroupedExperts(t["x"], new Routing(t["routing.Experts"], t["routing.Weights"], t["routing.Load"], t["routing.Load"], t["routing.Load"]), t["up"], t["down"]))
            .Float("x", 3, 4).Index("routing.Experts", 3, 2).Float("routing.Weights", 3, 2).Float("routing.Load", 5).Float("up", 5, 12, 4).Float("down", 5, 4, 6).Allow(AnyRank, "x", "rank"),
        new OpCall("Moe(x, router, up, down, options, function, isGated)", t => Engine.Moe(t["x"], t["router"], t["up"], t["down"], new RouteOptions(2)))
            .Float("x", 3, 4).Float("router", 5, 4).Float("up", 5, 12, 4).Float("down", 5, 4, 6).Allow(AnyRank, "x", "rank", "axis 0"),
    ];

    private static IEnumerable<OpCall> Optimizer() =>
    [
        AdamW(t => Engine.AdamW(Slots(t), new AdamWOptions(), 0.1f, t["step"], t["gradientNorm"], 1)),
        AdamW(t => Engine.AdamW(Slots(t), new AdamWOptions(), t["learningRate"], t["step"], t["gradientNorm"], 1)).Float("learningRate", 1),
        new OpCall("Norm(tensors)", t => Engine.Norm([t["tensor"], t["tensor 1"]])).Float("tensor", 2, 3).Float("tensor 1", 4)
            .Allow("each has a shape of its own", "tensor", "rank", "axis 0", "axis 1").Allow("each has a shape of its own", "tensor 1", "rank", "axis 0"),
    ];

    private static OpCall AdamW(Action<Call> run) => new OpCall("AdamW(slots, options, learningRate, step, gradientNorm, maxNorm)", run)
        .Add("slot.Value", [2, 3], DType.BFloat16).Float("slot.Master", 2, 3).Float("slot.Gradient", 2, 3).Float("slot.FirstMoment", 2, 3).Float("slot.SecondMoment", 2, 3)
        .Add("step", [1], DType.Int64).Float("gradientNorm").Allow("one element of any shape", "step", "rank");

    private static AdamWSlot[] Slots(Call t) => [new AdamWSlot(t["slot.Value"], t["slot.Master"], t["slot.Gradient"], t["slot.FirstMoment"], t["slot.SecondMoment"], true)];
}
