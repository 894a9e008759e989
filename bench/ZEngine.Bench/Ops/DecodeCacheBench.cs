using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>A prompt's keys and values on their way into a cache, and back.</summary>
public class DecodeCacheBench : OpBench, IOpBench
{
    private const long Steps = 1024, Groups = 4, Channels = 128;

    private Tensor _k = null!, _v = null!;
    private DecodeCache _cache = null!;

    /// <summary>The type of the cache: that of the activations, or bytes.</summary>
    [Params(DType.Float32, DType.Int8)]
    public DType Stored { get; set; }

    /// <inheritdoc/>
    public override void Setup()
    {
        (_k, _v) = (Normal(1, Steps, Groups, Channels), Normal(1, Steps, Groups, Channels));
        _cache = DecodeCache.Contiguous(Device.Cpu, Stored, 1, Steps, Groups, Channels);
        foreach (Tensor? tensor in (ReadOnlySpan<Tensor?>)[_cache.Keys, _cache.Values, _cache.Lengths, _cache.Tickets, _cache.Scales])
            if (tensor is not null) Own(tensor);
    }

    /// <summary>In.</summary>
    [Benchmark]
    public void Append()
    {
        Ops.Fill(_cache.Lengths, 0);
        Ops.AppendKeyValues(_k, _v, _cache);
    }

    /// <summary>Out, as <see cref="Append"/> left it.</summary>
    [Benchmark]
    public void Read() => Once(() => Ops.ReadKeyValues(_cache, Steps, DType.Float32));

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        foreach (DType stored in (DType[])[DType.Float32, DType.Int8])
        {
            using var bench = new DecodeCacheBench { Stored = stored };
            bench.Setup();
            bench.Append();
            double elements = 2.0 * Steps * Groups * Channels, bytes = elements * (4 + stored.Size);
            yield return new TableRow("DecodeCache", stored == DType.Int8 ? "append bytes" : "append", $"[1, {Steps}, {Groups}, {Channels}]", elements, bytes, bench.Append);
            yield return new TableRow("DecodeCache", stored == DType.Int8 ? "read bytes" : "read", $"[1, {Steps}, {Groups}, {Channels}]", elements, bytes, bench.Read);
        }
    }
}
