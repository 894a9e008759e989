// One room: a scenario of an op is a few lines, and they are read side by side.
using ZEngine.Cuda;
using ZEngine.Tests.Ops;
using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Emulator.Scenarios;

internal sealed class AdamWScenario : OpScenario
{
    public override string File => "AdamW.cu";
    public override IEnumerable<Survivor> Survivors =>
    [
        FirstSum("norm_total"), FirstSum("norm_squares"),
        new("adamw", "this block has read the counter", "seeing the ticket orders what came before it here; on a GPU the fence does that", 2),
        new("adamw", "so has every other", "as the fence before it", 2),
    ];

    protected override void More(CudaDevice device)
    {
        const int N = 300;
        float[] values = [.. Enumerable.Range(0, N).Select(i => MathF.Sin(i))];
        Tensor value = Tensor.From<float>(values, [N], device), gradient = Tensor.From<float>(values, [N], device);
        Tensor first = Tensor.Zeros([N], DType.Float32, device), second = Tensor.Zeros([N], DType.Float32, device), step = Tensor.Zeros([1], DType.Int64, device);
        Tensor norm = ZEngine.Ops.Norm([gradient, value]);
        Assert.Equal(Math.Sqrt(2 * values.Sum(x => (double)x * x)), norm.Item(), 1e-5);
        ZEngine.Ops.AdamW([new AdamWSlot(value, null, gradient, first, second, IsDecayed: false)], new AdamWOptions(), 0.01f, step, norm);
        // The first step of Adam moves every value by the learning rate against its gradient's sign.
        float[] got = value.ToArray<float>();
        for (int i = 0; i < N; i++) if (values[i] != 0) Assert.Equal(values[i] - 0.01f * MathF.Sign(values[i]), got[i], 1e-4f);
        Assert.Equal(1, step.Item());
    }
}

internal sealed class CausalConv1dScenario : OpScenario
{
    public override string File => "CausalConv1d.cu";
    protected override IEnumerable<OpCase> Cases =>
    [
        Case("causal_conv1d", "scenario").With("activation", "silu").Normal("x", [1, 12, 5]).Normal("weight", [5, 4]).Normal("bias", [5]).Normal("initial_state", [1, 3, 5]).Build(),
        Case("causal_conv1d", "scenario, whole accesses").With("activation", "silu").With("cu_seqlens", new[] { 0, 2, 3, 9 })
            .Normal("x", [1, 9, 36]).Normal("weight", [36, 4]).Normal("initial_state", [3, 3, 36]).Build(),
        Case("causal_conv1d", "scenario, whole accesses, five taps").With("activation", "silu").With("cu_seqlens", new[] { 0, 2, 3, 9 })
            .Normal("x", [1, 9, 36]).Normal("weight", [36, 5]).Normal("initial_state", [3, 4, 36]).Build(),
    ];
}

internal sealed class CopyScenario : OpScenario
{
    public override string File => "Copy.cu";

    protected override void More(CudaDevice device)
    {
        float[] values = [.. Enumerable.Range(0, 24).Select(i => i - 7.5f)];
        Tensor x = Tensor.From<float>(values, [4, 6], device);
        Assert.Equal([.. Enumerable.Range(0, 24).Select(i => values[i % 4 * 6 + i / 4])], x.Transpose(0, 1).Clone().ToArray<float>());
        float[] tile = [.. Enumerable.Range(0, 40 * 20).Select(i => i * 0.5f)];
        Assert.Equal([.. Enumerable.Range(0, 40 * 20).Select(i => tile[i % 40 * 20 + i / 40])], Tensor.From<float>(tile, [40, 20], device).Transpose(0, 1).Clone().ToArray<float>());
        Assert.Equal(values, x.To(DType.BFloat16).To(DType.Float32).ToArray<float>());
        Assert.Equal([.. values.Select(v => (int)v)], x.To(DType.Int32).ToArray<int>());
        Tensor sum = Tensor.Empty([4, 6], DType.Float32, device);
        ZEngine.Ops.Fill(sum, 2);
        device.Backend.Accumulate(x, sum);
        Assert.Equal([.. values.Select(v => v + 2)], sum.ToArray<float>());
        Tensor turned = Tensor.Empty([20, 40], DType.Float32, device);
        ZEngine.Ops.Fill(turned, 2);
        device.Backend.Accumulate(Tensor.From<float>(tile, [40, 20], device).Transpose(0, 1), turned);
        Assert.Equal([.. Enumerable.Range(0, 40 * 20).Select(i => tile[i % 40 * 20 + i / 40] + 2)], turned.ToArray<float>());
    }
}

internal sealed class CrossEntropyScenario : OpScenario
{
    public override string File => "CrossEntropy.cu";
    public override IEnumerable<Survivor> Survivors => [FirstSum("cross_entropy_mean"), FirstSum("cross_entropy_forward")];
    protected override IEnumerable<OpCase> Cases => [Case("cross_entropy", "scenario").With("label_smoothing", 0.1).Normal("logits", [3, 300]).Integers("targets", [3], 300).Build()];
}

internal sealed class ElementwiseScenario : OpScenario
{
    public override string File => "Elementwise.cu";
    protected override IEnumerable<OpCase> Cases =>
    [
        Case("elementwise", "scenario, silu").With("function", "silu").Normal("x", [3, 19]).Build(),
        Case("elementwise", "scenario, max").With("function", "max").Normal("a", [4, 3, 19]).Normal("b", [19]).Build(),
    ];

    protected override void More(CudaDevice device) => Assert.Equal([2, 4], ZEngine.Ops.Scale(Tensor.From<float>([1, 2], [2], device), 2).ToArray<float>());
}

internal sealed class EmbeddingScenario : OpScenario
{
    public override string File => "Embedding.cu";
    protected override IEnumerable<OpCase> Cases => [
        Case("embedding", "scenario").Normal("weight", [40, 5]).Integers("ids", [2, 70], 3).Build(),
        // 512 counts of each of nine tiles: more than the scan takes in one round.
        Case("embedding", "scenario, many tokens").Normal("weight", [300, 1]).Integers("ids", [9300], 300).Build(),
    ];
}

internal sealed class GatedActivationScenario : OpScenario
{
    public override string File => "GatedActivation.cu";
    protected override IEnumerable<OpCase> Cases => [Case("gated_mlp_activation", "scenario").With("activation", "silu").Normal("gate", [3, 20]).Normal("up", [3, 20]).Build()];
}

internal sealed class GroupedExpertsScenario : OpScenario
{
    public override string File => "GroupedExperts.cu";
    public override IEnumerable<Survivor> Survivors => [FirstSum("experts_activation_backward")];
    protected override IEnumerable<OpCase> Cases => [RouteScenario.Experts];

    /// <summary>On the tensor cores, against the CPU's floats: five slices of 32, and three, so that buffers of the pipeline are filled again.</summary>
    protected override void More(CudaDevice device)
    {
        const int tokens = 40, width = 136, hidden = 72;
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => ZEngine.Ops.Scale(ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(seed)), 0.3f).To(DType.BFloat16);
        Tensor x = Normal(1, tokens, width), logits = Normal(2, tokens, 2), up = Normal(3, 2, 2 * hidden, width), down = Normal(4, 2, width, hidden), dy = Normal(5, tokens, width);
        float[][] Results(Device on, DType type)
        {
            using Tape tape = Tape.Begin();
            Tensor input = tape.Watch(x.To(type).To(on)), upper = tape.Watch(up.To(on)), lower = tape.Watch(down.To(on));
            Routing routing = ZEngine.Ops.Route(logits.To(DType.Float32).To(on), new RouteOptions(2));
            Tensor y = ZEngine.Ops.GroupedExperts(input, routing, upper, lower);
            tape.Backward(y, dy.To(type).To(on));
            return [.. new[] { y, tape.GradientOf(input), tape.GradientOf(upper), tape.GradientOf(lower) }.Select(tensor => tensor.To(DType.Float32).ToArray<float>())];
        }
        float[][] want = Results(Device.Cpu, DType.Float32), got = Results(device, DType.BFloat16);
        for (int k = 0; k < want.Length; k++)
        {
            double size = Math.Sqrt(want[k].Average(w => (double)w * w));
            for (int i = 0; i < want[k].Length; i++)
                if (!(Math.Abs(want[k][i] - got[k][i]) <= 0.06 * (size + Math.Abs(want[k][i])))) Assert.Fail($"result {k} at {i}: got {got[k][i]:R}, want {want[k][i]:R}");
        }
    }
}

internal sealed class LayerNormScenario : OpScenario
{
    public override string File => "LayerNorm.cu";
    public override IEnumerable<Survivor> Survivors => [FirstSum("layer_norm_forward"), FirstSum("layer_norm_backward")];
    protected override IEnumerable<OpCase> Cases => [Case("layer_norm", "scenario").Normal("x", [3, 70]).Normal("weight", [70]).Normal("bias", [70]).Build()];
}

internal sealed class MatMulScenario : OpScenario
{
    public override string File => "MatMul.cu";
    protected override DType[] Types => [DType.Float32, DType.BFloat16];
    protected override IEnumerable<OpCase> Cases =>
    [
        // Five slices of 32, and three in the products of the gradients: buffers of the pipeline are filled again.
        Case("matmul", "scenario, tile").With("transpose_b", true).Normal("a", [70, 130]).Normal("b", [70, 130]).Build(),
        Case("matmul", "scenario, rows").With("transpose_b", true).With("activation", "gelu").Normal("a", [1, 40]).Normal("b", [5, 40]).Normal("bias", [5]).Build(),
    ];

    /// <summary>16-bit operands with a float result.</summary>
    protected override void More(CudaDevice device)
    {
        foreach ((bool transposeA, bool transposeB) in ((bool, bool)[])[(true, false), (false, true), (false, false)])
        {
            Tensor Operand(ulong seed, bool isInnerFirst) => ZEngine.Ops.RandomNormal(isInnerFirst ? [136, 72] : [72, 136], Device.Cpu, new RandomStream(seed)).To(DType.BFloat16);
            Tensor a = Operand(1, transposeA), b = Operand(2, !transposeB), y = Tensor.Empty([72, 72], DType.Float32, device);
            device.Backend.MatMul(new MatMulInputs(a.To(device), b.To(device), transposeA, transposeB, null), y, isAdding: false);
            float[] want = ZEngine.Ops.MatMul(a.To(DType.Float32), b.To(DType.Float32), transposeA, transposeB).ToArray<float>(), got = y.ToArray<float>();
            for (int i = 0; i < want.Length; i++) Assert.Equal(want[i], got[i], 1e-3f);
        }
    }
}

internal sealed class RandomScenario : OpScenario
{
    public override string File => "Random.cu";

    protected override void More(CudaDevice device)
    {
        var stream = new RandomStream(5);
        float[] uniform = ZEngine.Ops.RandomUniform([40], device, stream).ToArray<float>(), normal = ZEngine.Ops.RandomNormal([40], device, stream).ToArray<float>();
        for (int i = 0; i < 40; i++)
        {
            Assert.Equal(stream.Uniform(i), uniform[i]);
            Assert.Equal(stream.Normal(i), normal[i], 1e-6f);
        }
    }
}

internal sealed class ReduceScenario : OpScenario
{
    public override string File => "Reduce.cu";
    public override IEnumerable<Survivor> Survivors =>
    [
        new("reduce_columnsIfLb0E", "the words of all columns are there", "with one column to a thread each finishes its own"),
        new("reduce_partials", "the words of all columns are there", "with one column to a thread each finishes its own"),
    ];
    protected override IEnumerable<OpCase> Cases =>
    [
        Case("reduce", "scenario, rows").With("function", "sum").With("axis", 1).Normal("x", [3, 300]).Build(),
        Case("reduce", "scenario, wide rows").With("function", "sum").With("axis", 1).Normal("x", [2, 9000]).Build(),
        Case("reduce", "scenario, columns").With("function", "mean").With("axis", 0).Normal("x", [70, 5]).Build(),
        Case("reduce", "scenario, wide columns").With("function", "sum").With("axis", 0).Normal("x", [70, 8]).Build(),
        Case("reduce", "scenario, largest").With("function", "max").With("axis", 1).Normal("x", [2, 9001]).Build(),
    ];

    protected override void More(CudaDevice device)
    {
        Tensor x = Tensor.Zeros([1 << 17], DType.Float32, device);
        ZEngine.Ops.Fill(x, 0.5f);
        Assert.Equal(1 << 16, ZEngine.Ops.Sum(x).Item());
        // Sums of two matrices of partial results.
        float[][] Gradients(Device on)
        {
            Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(seed)).To(on);
            using Tape tape = Tape.Begin();
            Tensor weight = tape.Watch(Normal(1, 40)), bias = tape.Watch(Normal(2, 40));
            tape.Backward(ZEngine.Ops.LayerNorm(Normal(3, 20, 40), weight, bias, 1e-5f), Normal(4, 20, 40));
            return [tape.GradientOf(weight).ToArray<float>(), tape.GradientOf(bias).ToArray<float>()];
        }
        float[][] want = Gradients(Device.Cpu), got = Gradients(device);
        for (int k = 0; k < 2; k++)
        for (int i = 0; i < 40; i++) Assert.Equal(want[k][i], got[k][i], 1e-5f);
    }
}

internal sealed class RmsNormScenario : OpScenario
{
    public override string File => "RmsNorm.cu";
    public override IEnumerable<Survivor> Survivors =>
        [FirstSum("rms_norm_forward"), new("rms_norm_backward", "the turn is seen before the sums", "seeing the turn orders what came before it here; on a GPU the fence does that")];
    protected override IEnumerable<OpCase> Cases =>
    [
        Case("rms_norm", "scenario, groups").With("group_size", 35).Normal("x", [3, 70]).Normal("weight", [70]).Build(),
        Case("rms_norm", "scenario").With("gated", true).With("group_size", 35).Normal("x", [3, 70]).Normal("z", [3, 70]).Normal("weight", [70]).Build(),
        // More groups than multiprocessors: blocks walk two rows, and add to the same sums.
        Case("rms_norm", "scenario, turns").With("group_size", 35).Normal("x", [4, 35 * 140]).Normal("weight", [35 * 140]).Build(),
        Case("rms_norm", "scenario, turns with a gate").With("gated", true).With("group_size", 35).Normal("x", [4, 35 * 140]).Normal("z", [4, 35 * 140]).Normal("weight", [35 * 140]).Build(),
    ];

    /// <summary>A sum with a factor of each row, which is a sum over the block too.</summary>
    protected override void More(CudaDevice device)
    {
        const long rows = 3, width = 70;
        float[][] Results(Device on)
        {
            Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(seed)).To(on);
            using Tape tape = Tape.Begin();
            Tensor x = tape.Watch(Normal(1, rows, width)), residual = tape.Watch(Normal(2, rows, width)), squares = tape.Watch(ZEngine.Ops.Map(Pointwise.Square, Normal(3, rows, 40)));
            (Tensor y, Tensor sum) = ZEngine.Ops.AddRmsNorm(x, residual, Normal(4, width), 1e-5f, new RowScale(squares, width, 1e-5f));
            tape.Backward([y, sum], [Normal(5, rows, width), Normal(6, rows, width)]);
            return [y.ToArray<float>(), sum.ToArray<float>(), tape.GradientOf(x).ToArray<float>(), tape.GradientOf(residual).ToArray<float>(), tape.GradientOf(squares).ToArray<float>()];
        }
        float[][] want = Results(Device.Cpu), got = Results(device);
        for (int k = 0; k < want.Length; k++)
        for (int i = 0; i < want[k].Length; i++) Assert.Equal(want[k][i], got[k][i], 1e-5f);
    }
}

internal sealed class RopeScenario : OpScenario
{
    public override string File => "Rope.cu";
    protected override IEnumerable<OpCase> Cases => [Case("rope", "scenario").With("style", "half").With("position_offset", 3).Normal("x", [1, 3, 2, 8]).Build()];
}

internal sealed class RouteScenario : OpScenario
{
    internal static readonly OpCase Experts = Case("moe_swiglu", "scenario").With("top_k", 2).With("normalize", true)
        .Normal("x", [40, 70]).Normal("router", [2, 70]).Normal("gate_proj", [2, 69, 70], 0.3).Normal("up_proj", [2, 69, 70], 0.3).Normal("down_proj", [2, 70, 69], 0.3).Build();

    public override string File => "Route.cu";
    public override IEnumerable<Survivor> Survivors =>
    [
        FirstSum("route_losses"),
        new("route_forward", "the scores of all lanes are there", "a lane's later reads follow a shuffle of the whole warp"),
        new("route_forward", "all lanes have read the scores", "the next token's maximum is a shuffle of the whole warp, before any score is written"),
    ];
    protected override IEnumerable<OpCase> Cases => [Experts];
}

internal sealed class SsdScanStepScenario : OpScenario
{
    public override string File => "SsdScanStep.cu";
    protected override IEnumerable<OpCase> Cases =>
    [
        Case("ssd", "scenario, one step").With("softplus", true).Normal("x", [2, 1, 3, 10]).Normal("dt", [2, 1, 3]).Decay("A", [3]).Normal("B", [2, 1, 1, 9]).Normal("C", [2, 1, 1, 9])
            .Normal("D", [3]).Normal("initial_state", [2, 3, 10, 9]).Build("none"),
    ];
}

internal sealed class SelectiveStateUpdateScenario : OpScenario
{
    public override string File => "SelectiveStateUpdate.cu";
    protected override IEnumerable<OpCase> Cases => [];

    /// <summary>Two steps of two sequences, with more channels than are convolved at a time and more states than a thread has, and one with norms, against the CPU.</summary>
    protected override void More(CudaDevice device)
    {
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(seed));
        float[] Steps(Device on, long channels, float? epsilon)
        {
            const long n = 20, rank = 9;
            var layer = new SelectiveStateLayer(
                Normal(1, channels, 3).To(on), null, ZEngine.Ops.Scale(Normal(2, 1, rank + 2 * n, channels), 0.05f).To(on), Normal(3, channels, rank).To(on), Normal(4, channels, n).To(on), Normal(5, channels).To(on), NormEpsilon: epsilon);
            SelectiveStateCache cache = SelectiveStateCache.Zeros(on, 3, channels, n, 3);
            Tensor slots = Tensor.From<int>([2, 0], [2], on), x = Normal(6, 2, 2, channels).To(on), z = Normal(7, 2, 2, channels).To(on);
            Tensor[] y = [.. Enumerable.Range(0, 2).Select(i => ZEngine.Ops.SelectiveStateUpdate(x.Slice(0, i, 1).Reshape(2, channels), layer, cache, z.Slice(0, i, 1).Reshape(2, channels), slots))];
            return [.. y[0].ToArray<float>(), .. y[1].ToArray<float>(), .. cache.Convolution.ToArray<float>(), .. cache.Scan.ToArray<float>()];
        }
        foreach ((long channels, float? epsilon) in (ReadOnlySpan<(long, float?)>)[(1030, null), (40, 1e-5f)])
        {
            float[] want = Steps(Device.Cpu, channels, epsilon), got = Steps(device, channels, epsilon);
            for (int i = 0; i < want.Length; i++)
                if (!(Math.Abs(want[i] - got[i]) <= 2e-5f * (1 + Math.Abs(want[i])))) Assert.Fail($"at {i}: got {got[i]:R}, want {want[i]:R}");
        }
    }
}

internal sealed class StateUpdateScenario : OpScenario
{
    public override string File => "StateUpdate.cu";
    public override IEnumerable<Survivor> Survivors =>
        [new("state_update", "so it is with all others", "keeps the last block's moves behind its ticket; it reads nothing that others wrote, and the emulator executes in order")];
    protected override IEnumerable<OpCase> Cases => [];

    /// <summary>Two steps of two sequences, against the CPU.</summary>
    protected override void More(CudaDevice device)
    {
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(seed));
        Tensor weight = Normal(1, 104, 3), A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, Normal(2, 2)), -1), x = Normal(3, 2, 2, 104), dt = Normal(4, 2, 2, 2);
        float[] Steps(Device on)
        {
            StateCache cache = StateCache.Zeros(on, 3, 2, 40, 1, 12, 3);
            Tensor slots = Tensor.From<int>([2, 0], [2], on);
            Tensor[] y = [.. Enumerable.Range(0, 2).Select(i => ZEngine.Ops.StateUpdate(x.To(on).Slice(0, i, 1).Reshape(2, 104), dt.To(on).Slice(0, i, 1).Reshape(2, 2), A.To(on), weight.To(on), cache, slots: slots))];
            return [.. y[0].ToArray<float>(), .. y[1].ToArray<float>(), .. cache.Convolution.ToArray<float>(), .. cache.Scan.ToArray<float>()];
        }
        float[] want = Steps(Device.Cpu), got = Steps(device);
        for (int i = 0; i < want.Length; i++)
            if (!(Math.Abs(want[i] - got[i]) <= 1e-5f * (1 + Math.Abs(want[i])))) Assert.Fail($"at {i}: got {got[i]:R}, want {want[i]:R}");
    }
}

internal sealed class TreeAttentionScenario : OpScenario
{
    public override string File => "TreeAttention.cu";
    protected override IEnumerable<OpCase> Cases =>
        [Case("tree_attention", "scenario").With("shards", new[] { 0, 3, 3, 5 }).With("causal", false).Normal("q", [1, 2, 2, 4]).Normal("k", [1, 5, 1, 4]).Normal("v", [1, 5, 1, 4]).Build()];
}
