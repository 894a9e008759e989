namespace ZEngine.Models;

/// <summary>Keys and values of the tokens so far, [B, maxLength, G, P] each, in the type of the model's activations; or this rank's blocks of them.</summary>
/// <remarks>
/// With ranks, every rank attends to its own keys and all merge their outputs exactly (tree attention: Shyam et al. 2024, arXiv:2408.04093): one
/// packed exchange of B·L·H·(P + 1) numbers a layer, whatever the length. What is being taken in is on every rank and is merged last.
/// </remarks>
internal sealed class KeyValueCache(Device device, DType dtype, long batch, long maxLength, long groups, long headDimension) : LayerState
{
    private Tensor? _keys, _values;
    private KeyValueSharding? _sharding;
    private long _length, _ownLength;

    public override void Allocate(KeyValueSharding? sharding)
    {
        _sharding = sharding;
        long capacity = sharding?.LengthOf(sharding.World.Rank, maxLength) ?? maxLength;
        _keys = Tensor.Zeros([batch, capacity, groups, headDimension], dtype, device);
        _values = Tensor.Zeros([batch, capacity, groups, headDimension], dtype, device);
    }

    /// <summary>Takes in keys and values [B, L, G, P] and returns the attention of q [B, L, H, P] over all so far.</summary>
    public Tensor Attend(Tensor q, Tensor keys, Tensor values, AttentionOptions options)
    {
        if (_sharding is not { } sharding)
        {
            Append(keys, values);
            return Ops.Attention(q, _keys!.Slice(1, 0, _length), _values!.Slice(1, 0, _length), options).O;
        }
        if (options.Window > 0 || options.Layout is not null) throw new NotSupportedException($"KeyValueCache: a window ({options.Window}) or packed sequences cannot be had with keys and values on {sharding.World.Size} ranks.");
        using TensorScope scope = TensorScope.Enter();
        (Tensor O, Tensor Lse) own = Ops.Attention(q, keys, values, options);
        if (_length > 0)
        {
            (Tensor O, Tensor Lse) before = Ops.Attention(q, _keys!.Slice(1, 0, _ownLength), _values!.Slice(1, 0, _ownLength), options with { IsCausal = false });
            before = sharding.Merge(before.O.To(DType.Float32), before.Lse);
            own = Ops.MergeAttention(before, (own.O.To(DType.Float32), own.Lse));
        }
        Append(keys, values);
        return scope.Keep(own.O.To(q.DType));
    }

    public override void Own()
    {
        TensorScope.Release(_keys!);
        TensorScope.Release(_values!);
    }

    protected override void Dispose(bool disposing)
    {
        _keys?.Dispose();
        _values?.Dispose();
    }

    private void Append(Tensor keys, Tensor values)
    {
        long steps = keys.Shape[1], block = _sharding?.Block ?? long.MaxValue;
        for (long at = 0; at < steps;)
        {
            long position = _length + at, count = Math.Min(steps - at, block - position % block);
            if (_sharding is null || _sharding.OwnerOf(position) == _sharding.World.Rank)
            {
                Ops.Copy(keys.Slice(1, at, count), _keys!.Slice(1, _ownLength, count));
                Ops.Copy(values.Slice(1, at, count), _values!.Slice(1, _ownLength, count));
                _ownLength += count;
            }
            at += count;
        }
        _length += steps;
    }
}
