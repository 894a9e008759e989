using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>Products of a training step (projections, their dX and dW) and of decoding; OpenBLAS beside those in Float32.</summary>
public class MatMulBench : OpBench, IOpBench
{
    private sealed record Product(long M, long N, long K, bool TransposeA = false, bool TransposeB = false)
    {
        public override string ToString() => $"[{(TransposeA ? $"{K}, {M}]ᵀ" : $"{M}, {K}]")} x [{(TransposeB ? $"{N}, {K}]ᵀ" : $"{K}, {N}]")}";
    }

    private static readonly Product[] s_products =
    [
        new(1024, 1024, 1024),
        new(1024, 1024, 1024, TransposeB: true),
        new(256, 256, 256),
        new(256, 256, 256, TransposeB: true),
        new(2048, 2192, 512, TransposeB: true),                // in_proj of a Mamba-2 block, d 512
        new(2048, 512, 2192),                                  // its dX
        new(2192, 512, 2048, TransposeA: true),                // its dW
        new(2048, 512, 1024, TransposeB: true),                // out_proj
        new(2048, 1024, 512),
        new(512, 1024, 2048, TransposeA: true),
        new(64, 2048, 512, TransposeB: true),                  // a short prompt
    ];

    private Product _product = s_products[0];
    private Tensor _a = null!, _b = null!, _y = null!;
    private DType _weights = DType.Float32;

    /// <summary>A step's product, or one token's.</summary>
    [Params(Phase.Train, Phase.Decode)]
    public Phase Phase { get; set; }

    /// <inheritdoc/>
    public override void Setup()
    {
        if (Phase == Phase.Decode) _product = new Product(1, 8192, 4096, TransposeB: true);
        Product p = _product;
        _a = p.TransposeA ? Normal(p.K, p.M) : Normal(p.M, p.K);
        _b = p.TransposeB ? Normal(p.N, p.K) : Normal(p.K, p.N);
        if (_weights != DType.Float32) _b = Own(_b.To(_weights));
        _y = Normal(p.M, p.N);
    }

    /// <summary>y = a·b.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.MatMul(_a, _b, _product.TransposeA, _product.TransposeB));

    /// <summary>y, da and db: three products.</summary>
    [Benchmark]
    public void ForwardBackward() => Differentiate(() => Ops.MatMul(_a, _b, _product.TransposeA, _product.TransposeB), _y, _a, _b);

    private unsafe void Peer() => OpenBlas.Multiply(_product.TransposeA, _product.TransposeB, _product.M, _product.N, _product.K, (float*)_a.Address, (float*)_b.Address, (float*)_y.Address);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        int all = CpuDevice.Threads;
        foreach (DType weights in (DType[])[DType.Float32, DType.BFloat16])
        foreach (Product product in s_products)
        {
            using var bench = new MatMulBench { _product = product, _weights = weights };
            bench.Setup();
            foreach (int threads in all == 1 ? [1] : (int[])[1, all])
                yield return bench.Row("forward", threads);
        }
        foreach (DType weights in (DType[])[DType.Float32, DType.BFloat16])
        {
            using var bench = new MatMulBench { Phase = Phase.Decode, _weights = weights };
            bench.Setup();
            foreach (int threads in all == 1 ? [1] : (int[])[1, all])
                yield return bench.Row("decode", threads);
        }
    }

    private TableRow Row(string pass, int threads)
    {
        (double m, double n, double k) = (_product.M, _product.N, _product.K);
        return new TableRow("MatMul", pass, _product.ToString(), Flops: 2 * m * n * k, Bytes: 4 * (m * k + m * n) + n * k * _weights.Size, Forward)
        {
            DType = _weights,
            Threads = threads,
            Peer = OpenBlas.IsPresent && _weights == DType.Float32 ? Peer : null,
        };
    }
}
