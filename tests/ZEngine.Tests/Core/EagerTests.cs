namespace ZEngine.Tests.Core;

/// <summary>With no scope open the caller owns what an op returns, and nothing else is left behind.</summary>
public sealed class EagerTests
{
    public static TheoryData<string> Names => [.. Calls.Keys];

    private static readonly Dictionary<string, Func<Tensor, Tensor, Tensor[]>> Calls = new()
    {
        // x [2, 6, 8] is a part of a wider tensor, so that every op must make a copy where it needs dense input; w [8].
        ["Map"] = (x, _) => [ZEngine.Ops.Map(Pointwise.Silu, x)],
        ["Scale"] = (x, _) => [ZEngine.Ops.Scale(x, 2)],
        ["Add, broadcast"] = (x, w) => [ZEngine.Ops.Add(x, w)],
        ["Sum"] = (x, _) => [ZEngine.Ops.Sum(x)],
        ["Mean of an axis"] = (x, _) => [ZEngine.Ops.Mean(x, 1)],
        ["Concat"] = (x, _) => [ZEngine.Ops.Concat(1, x, x)],
        ["Split"] = (x, _) => ZEngine.Ops.Split(x, 3, 5),
        ["MatMul"] = (x, _) => { using Tensor t = x.Transpose(1, 2); return [ZEngine.Ops.MatMul(x, t)]; },
        ["Linear, bias"] = (x, w) => { using Tensor m = w.Reshape(1, 8).Contiguous(); using Tensor b = Tensor.Zeros([1], DType.Float32, Device.Cpu); return [ZEngine.Ops.Linear(x, m, b)]; },
        ["RmsNorm"] = (x, w) => [ZEngine.Ops.RmsNorm(x, w, 1e-5f, x)],
        ["LayerNorm"] = (x, w) => [ZEngine.Ops.LayerNorm(x, w, w, 1e-5f)],
        ["GatedActivation"] = (x, _) => [ZEngine.Ops.GatedActivation(x, x, Pointwise.Silu)],
        ["GatedActivation, fused"] = (x, _) => [ZEngine.Ops.GatedActivation(x, Pointwise.Silu)],
        ["CrossEntropy"] = (x, _) => { using Tensor t = Tensor.Zeros([2, 6], DType.Int64, Device.Cpu); return [ZEngine.Ops.CrossEntropy(x, t)]; },
        ["Embedding"] = (x, _) => { using Tensor table = x.Select(0, 0); using Tensor t = Tensor.Zeros([3], DType.Int32, Device.Cpu); return [ZEngine.Ops.Embedding(table, t)]; },
        ["CausalConv1d"] = (x, w) => { using Tensor taps = w.Reshape(8, 1); (Tensor y, Tensor s) = ZEngine.Ops.CausalConv1d(x, taps); return [y, s]; },
        ["Attention"] = (x, _) => { using Tensor q = x.Reshape(2, 6, 2, 4); (Tensor o, Tensor lse) = ZEngine.Ops.Attention(q, q, q); return [o, lse]; },
        ["SsdScan"] = (x, w) =>
        {
            using Tensor u = x.Reshape(2, 6, 2, 4);
            using Tensor dt = x.Slice(2, 0, 2);
            using Tensor A = w.Slice(0, 0, 2);
            (Tensor y, Tensor s) = ZEngine.Ops.SsdScan(u, dt, A, u, u);
            return [y, s];
        },
        ["SelectiveScan"] = (x, w) =>
        {
            using Tensor A = w.Reshape(8, 1);
            using Tensor column = x.Slice(2, 0, 1);
            using Tensor B = column.Reshape(2, 6, 1, 1);
            (Tensor y, Tensor s) = ZEngine.Ops.SelectiveScan(x, x, A, B, B);
            return [y, s];
        },
        ["Route"] = (x, _) =>
        {
            Routing r = ZEngine.Ops.Route(x, new RouteOptions(2));
            return [r.Experts, r.Weights, r.Load, r.AuxLoss, r.ZLoss];
        },
    };

    [Theory]
    [MemberData(nameof(Names))]
    public void Op_without_a_scope_leaves_only_its_results(string name)
    {
        using Tensor wide = ZEngine.Ops.RandomNormal([2, 6, 11], Device.Cpu, new RandomStream(1));
        using Tensor x = wide.Slice(2, 1, 8);
        using Tensor w = ZEngine.Ops.RandomUniform([8], Device.Cpu, new RandomStream(2), -2, -1);
        Tensor[] warm = Calls[name](x, w);
        foreach (Tensor result in warm) result.Dispose();

        long buffers = Devices.LiveBuffers(Device.Cpu);
        Tensor[] results = Calls[name](x, w);
        Assert.All(results, result => Assert.False(result.IsDisposed));
        foreach (Tensor result in results) result.Dispose();
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);
    }
}
