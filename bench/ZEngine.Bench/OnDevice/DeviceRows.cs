namespace ZEngine.Bench;

/// <summary>The rows of <c>device</c>: every op that a model spends its time in, forward and with its gradients.</summary>
internal static class DeviceRows
{
    private const float Epsilon = 1e-5f;

    public static IEnumerable<DeviceRow> All(DeviceSizes s, DType dtype) =>
        [.. Activations(s, dtype.Size), .. Norms(s, dtype.Size), .. Tables(s, dtype.Size), .. Losses(s, dtype.Size), .. Products(s, dtype.Size), .. Attention(s, dtype.Size), .. Decode(s, dtype), .. Scans(s, dtype.Size)];

    private static Dictionary<string, long> Sizes(params ReadOnlySpan<(string Letter, long Size)> sizes)
    {
        var all = new Dictionary<string, long>();
        foreach ((string letter, long size) in sizes) all[letter] = size;
        return all;
    }

    /// <summary>Forward, and forward with backward, of an op with one result.</summary>
    private static IEnumerable<DeviceRow> Pair(string op, Dictionary<string, long> sizes, (double Forward, double Train) flops, (double Forward, double Train) bytes, Func<DeviceOperands, (Func<Tensor> Forward, Tensor[] Inputs)> make)
    {
        yield return new DeviceRow(op, "forward", sizes, flops.Forward, bytes.Forward, o =>
        {
            Func<Tensor> forward = make(o).Forward;
            return () => DeviceOperands.Once(() => forward());
        });
        yield return new DeviceRow(op, "train", sizes, flops.Train, bytes.Train, o =>
        {
            (Func<Tensor> forward, Tensor[] inputs) = make(o);
            using Tensor like = forward();
            Tensor dy = like.Rank == 0 ? o.Own(Tensor.Scalar(1, o.Device)) : o.Normal(like.Shape);
            return () => DeviceOperands.Train(forward, dy, inputs);
        });
    }

    private static IEnumerable<DeviceRow> Activations(DeviceSizes s, double e)
    {
        double n = e * s.T * s.D, gated = e * s.T * s.F;
        foreach (DeviceRow row in Pair("Elementwise", Sizes(("T", s.T), ("D", s.D)), default, (2 * n, 5 * n), o => o.Normal(s.T, s.D) is var x ? (() => Ops.Map(Pointwise.Silu, x), [x]) : default)) yield return row;
        foreach (DeviceRow row in Pair("Reduce", Sizes(("T", s.T), ("D", s.D)), default, (n, 2 * n), o => o.Normal(s.T, s.D) is var x ? (() => Ops.Sum(x, -1), [x]) : default)) yield return row;
        foreach (DeviceRow row in Pair("GatedActivation", Sizes(("T", s.T), ("F", s.F)), default, (3 * gated, 8 * gated), o =>
            (o.Normal(s.T, s.F), o.Normal(s.T, s.F)) is var (gate, up) ? (() => Ops.GatedActivation(gate, up, Pointwise.Silu), [gate, up]) : default)) yield return row;
        foreach (DeviceRow row in Pair("CausalConv1d", Sizes(("B", s.B), ("L", s.L), ("D", s.D), ("K", 4)), (8.0 * s.T * s.D, 32.0 * s.T * s.D), (2 * n, 5 * n), o =>
            (o.Normal(s.B, s.L, s.D), o.Float(s.D, 4), o.Float(s.D)) is var (x, weight, bias) ? (() => Ops.CausalConv1d(x, weight, bias, hasSilu: true).Y, [x, weight, bias]) : default)) yield return row;
    }

    private static IEnumerable<DeviceRow> Norms(DeviceSizes s, double e)
    {
        double n = e * s.T * s.D;
        Dictionary<string, long> sizes = Sizes(("T", s.T), ("D", s.D));
        foreach (DeviceRow row in Pair("RmsNorm", sizes, default, (2 * n, 5 * n), o => (o.Normal(s.T, s.D), o.Float(s.D)) is var (x, w) ? (() => Ops.RmsNorm(x, w, Epsilon), [x, w]) : default)) yield return row;
        foreach (DeviceRow row in Pair("RmsNorm gated", sizes, default, (3 * n, 8 * n), o => (o.Normal(s.T, s.D), o.Float(s.D), o.Normal(s.T, s.D)) is var (x, w, z) ? (() => Ops.RmsNorm(x, w, Epsilon, z), [x, w, z]) : default)) yield return row;
        foreach (DeviceRow row in Pair("LayerNorm", sizes, default, (2 * n, 5 * n), o => (o.Normal(s.T, s.D), o.Float(s.D), o.Float(s.D)) is var (x, w, b) ? (() => Ops.LayerNorm(x, w, b, Epsilon), [x, w, b]) : default)) yield return row;
    }

    private static IEnumerable<DeviceRow> Tables(DeviceSizes s, double e)
    {
        double n = e * s.T * s.D, heads = e * s.T * s.Heads * s.HeadDimension;
        foreach (DeviceRow row in Pair("Embedding", Sizes(("T", s.T), ("D", s.D), ("V", s.V)), default, (2 * n, 3 * n + e * s.V * s.D), o =>
            (o.Normal(s.V, s.D), o.Tokens(s.V, s.T)) is var (table, tokens) ? (() => Ops.Embedding(table, tokens), [table]) : default)) yield return row;
        foreach (DeviceRow row in Pair("Rope", Sizes(("B", s.B), ("L", s.L), ("H", s.Heads), ("P", s.HeadDimension)), default, (2 * heads, 4 * heads), o =>
            (o.Normal(s.B, s.L, s.Heads, s.HeadDimension), o.Float(s.L, s.HeadDimension / 2), o.Float(s.L, s.HeadDimension / 2)) is var (x, cosine, sine) ? (() => Ops.Rope(x, cosine, sine), [x]) : default)) yield return row;
    }

    private static IEnumerable<DeviceRow> Losses(DeviceSizes s, double e)
    {
        long rows = s.T / 2;
        double n = e * rows * s.V;
        foreach (DeviceRow row in Pair("CrossEntropy", Sizes(("T", rows), ("V", s.V)), default, (n, 3 * n), o =>
            (o.Normal(rows, s.V), o.Tokens(s.V, rows)) is var (logits, targets) ? (() => Ops.CrossEntropy(logits, targets), [logits]) : default)) yield return row;
        // Reads and writes the value and both moments, reads the gradient, all Float32.
        yield return new DeviceRow("AdamW", "step", Sizes(("N", s.Numbers)), 0, 28.0 * s.Numbers, o =>
        {
            AdamWSlot[] slots = [new AdamWSlot(o.Float(s.Numbers), null, o.Float(s.Numbers), o.Zeros(DType.Float32, s.Numbers), o.Zeros(DType.Float32, s.Numbers), IsDecayed: true)];
            Tensor step = o.Zeros(DType.Int64);
            return () => DeviceOperands.Once(() => Ops.AdamW(slots, new AdamWOptions(), 1e-4f, step));
        });
    }

    private static IEnumerable<DeviceRow> Products(DeviceSizes s, double e)
    {
        double flops = 2.0 * s.M * s.M * s.M, bytes = 3 * e * s.M * s.M;
        foreach (DeviceRow row in Pair("MatMul", Sizes(("M", s.M), ("N", s.M), ("K", s.M)), (flops, 3 * flops), (bytes, 3 * bytes), o =>
            (o.Normal(s.M, s.M), o.Normal(s.M, s.M)) is var (x, w) ? (() => Ops.Linear(x, w), [x, w]) : default)) yield return row;
        // What the activation is given is kept, and read again for the gradient with that of the result.
        foreach (DeviceRow row in Pair("Linear gelu", Sizes(("M", s.M), ("N", s.M), ("K", s.M)), (flops, 3 * flops), (bytes, 3 * bytes + 4 * e * s.M * s.M), o =>
            (o.Normal(s.M, s.M), o.Normal(s.M, s.M), o.Float(s.M)) is var (x, w, bias) ? (() => Ops.Linear(x, w, bias, Pointwise.GeluTanh), [x, w, bias]) : default)) yield return row;
        const long slots = 2;
        double pairs = slots * s.T, expert = 3.0 * s.D * s.Hidden, weights = e * s.Experts * expert;
        foreach (DeviceRow row in Pair("GroupedExperts", Sizes(("T", s.T), ("D", s.D), ("E", s.Experts), ("S", slots), ("F", s.Hidden)), (2 * pairs * expert, 6 * pairs * expert), (2 * e * s.T * s.D + weights, 6 * e * s.T * s.D + 3 * weights), o =>
        {
            (Tensor x, Tensor up, Tensor down) = (o.Normal(s.T, s.D), o.Normal(s.Experts, 2 * s.Hidden, s.D), o.Normal(s.Experts, s.D, s.Hidden));
            Routing routing = Ops.Route(o.Float(s.T, s.Experts), new RouteOptions((int)slots));
            foreach (Tensor tensor in (ReadOnlySpan<Tensor>)[routing.Experts, routing.Weights, routing.Load, routing.AuxLoss, routing.ZLoss]) o.Own(tensor);
            return (() => Ops.GroupedExperts(x, routing, up, down), [x, up, down]);
        })) yield return row;
    }

    /// <summary>Head sizes at one length; then lengths, no mask, a window and grouped keys at one head size. All have as many channels and about as many tokens.</summary>
    private static IEnumerable<DeviceRow> Attention(DeviceSizes s, double e)
    {
        long channels = s.Heads * s.HeadDimension;
        foreach (long p in (long[])[64, 80, 128, 160, 224, 256]) foreach (DeviceRow row in Attention(e, s.B, s.L, Math.Max(1, channels / p), 1, p, isCausal: true, window: 0)) yield return row;
        (long heads, long channelsOfHead) = (s.Heads, s.HeadDimension);
        foreach (long length in (long[])[s.L / 4, 4 * s.L]) foreach (DeviceRow row in Attention(e, Math.Max(1, s.T / length), length, heads, 1, channelsOfHead, isCausal: true, window: 0)) yield return row;
        foreach (DeviceRow row in Attention(e, s.B, s.L, heads, 1, channelsOfHead, isCausal: false, window: 0)) yield return row;
        foreach (DeviceRow row in Attention(e, s.B, s.L, heads, 1, channelsOfHead, isCausal: true, window: s.L / 4)) yield return row;
        foreach (DeviceRow row in Attention(e, s.B, s.L, heads, Math.Min(4, heads), channelsOfHead, isCausal: true, window: 0)) yield return row;
    }

    private static IEnumerable<DeviceRow> Attention(double e, long batch, long length, long heads, long headsOfGroup, long p, bool isCausal, long window)
    {
        // A window hides all but the nearest keys of a query. Two products of all visible pairs forward, five backward.
        double seen = window > 0 ? window * (length - (window - 1) / 2.0) : isCausal ? length * (length + 1) / 2.0 : (double)length * length;
        double product = 2 * batch * heads * seen * p, queries = e * batch * length * heads * p, keys = queries / headsOfGroup;
        var options = new AttentionOptions(isCausal, Window: window);
        return Pair("Attention", Sizes(("B", batch), ("L", length), ("H", heads), ("G", heads / headsOfGroup), ("P", p), ("causal", isCausal ? 1 : 0), ("window", window)),
            (2 * product, 7 * product), (2 * (queries + keys), 6 * (queries + keys)), o =>
            {
                (Tensor q, Tensor k, Tensor v) = (o.Normal(batch, length, heads, p), o.Normal(batch, length, heads / headsOfGroup, p), o.Normal(batch, length, heads / headsOfGroup, p));
                return (() => Ops.Attention(q, k, v, options).O, [q, k, v]);
            });
    }

    /// <summary>A token of few sequences with many keys, and of many with fewer; of bytes too. Then a step of a Mamba-2 layer's states, floats and of 16 bits.</summary>
    private static IEnumerable<DeviceRow> Decode(DeviceSizes s, DType type)
    {
        (long heads, long groups, long p) = (s.Heads, Math.Max(1, s.Heads / 4), s.HeadDimension);
        foreach ((long batch, long keys, DType stored) in ((long, long, DType)[])[(1, s.Keys, type), (64, s.Keys / 16, type), (1, s.Keys, DType.Int8), (64, s.Keys / 16, DType.Int8)])
        {
            double rows = 2.0 * batch * keys * groups;
            yield return new DeviceRow("AttentionDecode", stored == DType.Int8 ? "bytes" : "decode", Sizes(("B", batch), ("S", keys), ("H", heads), ("G", groups), ("P", p)),
                4.0 * batch * keys * heads * p, rows * (stored.Size * p + (stored == DType.Int8 ? sizeof(float) : 0)), o =>
                {
                    (Tensor q, Tensor k, Tensor v) = (o.Normal(batch, 1, heads, p), o.Normal(batch, 1, groups, p), o.Normal(batch, 1, groups, p));
                    var rotary = new DecodeRotary(o.Float(keys + 1, p / 2), o.Float(keys + 1, p / 2));
                    DecodeCache cache = DecodeCache.Contiguous(o.Device, stored, batch, keys + 1, groups, p);
                    foreach (Tensor? tensor in (ReadOnlySpan<Tensor?>)[cache.Keys, cache.Values, cache.Lengths, cache.Tickets, cache.Scales]) if (tensor is not null) o.Own(tensor);
                    using (var before = new DeviceOperands(o.Device, type)) Ops.AppendKeyValues(before.Normal(batch, keys, groups, p), before.Normal(batch, keys, groups, p), cache);
                    // The key that a run appends lies where the run before left its own: lengths are set back, a small launch of its own.
                    return () => DeviceOperands.Once(() =>
                    {
                        Ops.AttentionDecode(q, k, v, cache, rotary);
                        Ops.Fill(cache.Lengths, keys);
                    });
                });
        }

        const long headDimension = 64, taps = 4;
        foreach (DType kept in (DType[])[DType.Float32, .. type.Size == 2 ? (DType[])[type] : []])
        foreach (long batch in (long[])[1, 16 * s.B])
        {
            double states = (double)batch * s.SsdHeads * headDimension * s.SsdStates;
            long width = s.SsdHeads * headDimension + 2 * s.SsdStates;
            yield return new DeviceRow("StateUpdate", kept == DType.Float32 ? "decode" : "halves", Sizes(("B", batch), ("H", s.SsdHeads), ("P", headDimension), ("N", s.SsdStates), ("K", taps)), 5 * states, 2 * kept.Size * states, o =>
            {
                (Tensor x, Tensor dt, Tensor a) = (o.Normal(batch, width), o.Normal(batch, s.SsdHeads), o.Own(Tensor.Empty([s.SsdHeads], DType.Float32, o.Device)));
                (Tensor weight, Tensor bias, Tensor d) = (o.Float(width, taps), o.Float(width), o.Float(s.SsdHeads));
                Ops.Fill(a, -1);
                var cache = new StateCache(o.Float(batch, taps - 1, width), o.Made(kept, batch, s.SsdHeads, headDimension, s.SsdStates), o.Zeros(DType.Int32, batch, 1));
                return () => DeviceOperands.Once(() => Ops.StateUpdate(x, dt, a, weight, cache, bias, d));
            });
        }
    }

    private static IEnumerable<DeviceRow> Scans(DeviceSizes s, double e)
    {
        const long states = 16, headDimension = 64, chunk = 128;
        // A batch, and one long sequence, whose time is walked in segments.
        foreach ((long batch, long length) in ((long, long)[])[(s.B, s.L), (1, 8 * s.L)])
        {
            double tokens = batch * length, operations = 6 * tokens * s.ScanChannels * states, channels = e * tokens * s.ScanChannels, shared = 2 * e * tokens * states;
            foreach (DeviceRow row in Pair("SelectiveScan", Sizes(("B", batch), ("L", length), ("D", s.ScanChannels), ("N", states)), (operations, 3 * operations), (4 * channels + shared, 11 * channels + 4 * shared), o =>
            {
                (Tensor u, Tensor dt, Tensor z) = (o.Normal(batch, length, s.ScanChannels), o.Normal(batch, length, s.ScanChannels), o.Normal(batch, length, s.ScanChannels));
                (Tensor b, Tensor c, Tensor d) = (o.Normal(batch, length, 1, states), o.Normal(batch, length, 1, states), o.Float(s.ScanChannels));
                Tensor a = o.Own(Ops.Scale(o.Own(Ops.Map(Pointwise.Exp, o.Float(s.ScanChannels, states))), -1));
                return (() => Ops.SelectiveScan(u, dt, a, b, c, d, z).Y, [u, dt, a, b, c, d, z]);
            })) yield return row;
        }

        // A token's step of a Mamba layer, for one sequence and for many: reads the weights once and the states in and out.
        const long taps = 4;
        long rank = Math.Max(8, s.ScanChannels / 32);
        foreach (long batch in (long[])[1, 32])
        {
            double weights = (2.0 * rank + 2 * states) * s.ScanChannels, state = (double)batch * s.ScanChannels * (states + taps - 1);
            yield return new DeviceRow("SelectiveStateUpdate", "step", Sizes(("B", batch), ("D", s.ScanChannels), ("N", states), ("R", rank)), 2 * batch * weights + 6.0 * batch * s.ScanChannels * states, e * weights + 8 * state + 3 * e * batch * s.ScanChannels, o =>
            {
                Tensor projection = o.Own(Ops.Scale(o.Normal(1, rank + 2 * states, s.ScanChannels), 1 / MathF.Sqrt(s.ScanChannels)));
                var layer = new SelectiveStateLayer(
                    o.Float(s.ScanChannels, taps), o.Float(s.ScanChannels), projection, o.Normal(s.ScanChannels, rank), o.Float(s.ScanChannels, states), o.Float(s.ScanChannels), o.Float(s.ScanChannels));
                var cache = new SelectiveStateCache(o.Float(batch, taps - 1, s.ScanChannels), o.Float(batch, s.ScanChannels, states));
                (Tensor x, Tensor z) = (o.Normal(batch, s.ScanChannels), o.Normal(batch, s.ScanChannels));
                return () => DeviceOperands.Once(() => Ops.SelectiveStateUpdate(x, layer, cache, z));
            });
        }

        double steps = s.T, heads = s.SsdHeads, n = s.SsdStates, rows = e * steps * heads * headDimension, groups = 2 * e * steps * n;
        double forward = steps * (chunk * n + heads * (chunk * headDimension + 4 * n * headDimension)), backward = steps * (3 * chunk * n + heads * (2 * chunk * headDimension + 8 * n * headDimension));
        foreach (DeviceRow row in Pair("SsdScan", Sizes(("B", s.B), ("L", s.L), ("H", s.SsdHeads), ("P", headDimension), ("N", s.SsdStates)), (forward, forward + backward), (2 * rows + groups, 5 * rows + 3 * groups), o =>
        {
            (Tensor x, Tensor dt) = (o.Normal(s.B, s.L, s.SsdHeads, headDimension), o.Normal(s.B, s.L, s.SsdHeads));
            (Tensor b, Tensor c, Tensor a) = (o.Normal(s.B, s.L, 1, s.SsdStates), o.Normal(s.B, s.L, 1, s.SsdStates), o.Own(Tensor.Empty([s.SsdHeads], DType.Float32, o.Device)));
            (Tensor d, Tensor bias) = (o.Float(s.SsdHeads), o.Float(s.SsdHeads));
            Ops.Fill(a, -1);
            return (() => Ops.SsdScan(x, dt, a, b, c, d, null, bias).Y, [x, dt, a, b, c, d, bias]);
        })) yield return row;

        // What stands between a layer's projections, of rows [z; x; B; C; dt], with heads enough that they are whole accesses.
        long mixers = Math.Max(8, s.SsdHeads), width = mixers * headDimension, mixed = width + 2 * s.SsdStates;
        double products = steps * (chunk * n + mixers * (chunk * headDimension + 4 * n * headDimension)), gradients = steps * (3 * chunk * n + mixers * (2 * chunk * headDimension + 8 * n * headDimension));
        double projected = e * steps * (width + mixed + mixers), result = e * steps * width, convolution = 2 * taps * steps * mixed;
        foreach (DeviceRow row in Pair("Mamba2Scan", Sizes(("B", s.B), ("L", s.L), ("H", mixers), ("P", headDimension), ("N", s.SsdStates), ("K", taps)), (products + convolution, products + gradients + 4 * convolution), (projected + result, 3 * projected + 2 * result), o =>
        {
            (Tensor x, Tensor weight, Tensor norm, Tensor bias) = (o.Normal(s.B, s.L, width + mixed + mixers), o.Float(mixed, 1, taps), o.Float(width), o.Float(mixed));
            (Tensor a, Tensor d, Tensor dtBias) = (o.Own(Tensor.Empty([mixers], DType.Float32, o.Device)), o.Float(mixers), o.Float(mixers));
            Ops.Fill(a, -1);
            return (() => Ops.Mamba2Scan(x, a, weight, norm, new Mamba2ScanOptions(1, Epsilon), bias, d, dtBias).Y, [x, a, weight, norm, bias, d, dtBias]);
        })) yield return row;
    }
}
