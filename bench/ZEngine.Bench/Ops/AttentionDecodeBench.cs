using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>One token of several sequences against their caches, rotation and append included.</summary>
public class AttentionDecodeBench : OpBench, IOpBench
{
    private const long Heads = 8, Groups = 2, Channels = 128;

    private long _batch = 4, _keys = 2048;
    private Tensor _q = null!, _k = null!, _v = null!;
    private DecodeCache _cache = null!;
    private DecodeRotary _rotary = null!;

    /// <summary>The type of the cache: that of the activations, or bytes.</summary>
    [Params(DType.Float32, DType.Int8)]
    public DType Stored { get; set; }

    /// <inheritdoc/>
    public override void Setup()
    {
        (_q, _k, _v) = (Normal(_batch, 1, Heads, Channels), Normal(_batch, 1, Groups, Channels), Normal(_batch, 1, Groups, Channels));
        _rotary = new DecodeRotary(Normal(_keys + 1, Channels / 2), Normal(_keys + 1, Channels / 2));
        _cache = DecodeCache.Contiguous(Device.Cpu, Stored, _batch, _keys + 2, Groups, Channels);
        foreach (Tensor? tensor in (ReadOnlySpan<Tensor?>)[_cache.Keys, _cache.Values, _cache.Lengths, _cache.Tickets, _cache.Scales])
            if (tensor is not null) Own(tensor);
        Once(() => Ops.AppendKeyValues(Ops.RandomNormal([_batch, _keys, Groups, Channels], Device.Cpu, new RandomStream(1)), Ops.RandomNormal([_batch, _keys, Groups, Channels], Device.Cpu, new RandomStream(2)), _cache));
    }

    /// <summary>The token, and back to the length before it.</summary>
    [Benchmark]
    public void Decode() => Once(() =>
    {
        Ops.AttentionDecode(_q, _k, _v, _cache, _rotary);
        Ops.Fill(_cache.Lengths, _keys);
    });

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        foreach ((DType stored, long batch, long keys) in ((DType, long, long)[])[(DType.Float32, 1, 1024), (DType.Float32, 1, 16384), (DType.Float32, 8, 2048), (DType.Int8, 1, 16384), (DType.Int8, 8, 2048)])
        {
            using var bench = new AttentionDecodeBench { Stored = stored, _batch = batch, _keys = keys };
            bench.Setup();
            double rows = 2.0 * batch * keys * Groups;
            yield return new TableRow("AttentionDecode", stored == DType.Int8 ? "bytes" : "decode", $"B {batch}, S {keys}, [H {Heads}, G {Groups}, P {Channels}]",
                4.0 * batch * keys * Heads * Channels, rows * (stored.Size * Channels + (stored == DType.Int8 ? 4 : 0)), bench.Decode);
        }
    }
}
