namespace ZEngine.Models;

/// <summary>Keys and values of the tokens so far, [B, maxLength, G, P] each, in the type of the model's activations or in bytes; or this rank's blocks of them.</summary>
/// <remarks>
/// Of a layer with a window the last tokens alone, in a ring that takes the same memory for a text of any length.
/// With ranks, every rank attends to its own keys and all merge their outputs exactly (tree attention: Shyam et al. 2024, arXiv:2408.04093): one
/// packed exchange of B·L·H·(P + 1) numbers a layer, whatever the length. What is being taken in is on every rank and is merged last.
/// </remarks>
internal sealed class KeyValueCache(Device device, DType dtype, long batch, long maxLength, long groups, long headDimension, long window = 0) : LayerState
{
    private DecodeCache? _cache;
    private KeyValueSharding? _sharding;
    private long _length, _ownLength;
    private bool _isInPlace;

    /// <summary>The attention of a layer, with what came before where there is a cache, which takes in the new keys and values.</summary>
    /// <param name="cache">Keys and values so far, or null.</param>
    /// <param name="q">[B, L, H, P], not rotated.</param>
    /// <param name="k">[B, L, G, P], not rotated.</param>
    /// <param name="v">[B, L, G, P].</param>
    /// <param name="rotary">Rotation of q and k, or null.</param>
    /// <param name="offset">Position of the first step.</param>
    /// <param name="options">Causal; scale, window and layout.</param>
    public static Tensor Attend(KeyValueCache? cache, Tensor q, Tensor k, Tensor v, RotaryEmbedding? rotary, long offset, AttentionOptions options)
    {
        if (cache is { _sharding: null } && q.Shape[1] == 1) return cache.Decode(q, k, v, rotary, options);
        if (rotary is not null)
        {
            (Tensor cosine, Tensor sine) = rotary.Tables(offset + q.Shape[1]);
            (q, k) = (Ops.Rope(q, cosine, sine, offset, layout: options.Layout), Ops.Rope(k, cosine, sine, offset, layout: options.Layout));
        }
        return cache is null ? Ops.Attention(q, k, v, options).O : cache._sharding is { } sharding ? cache.AttendInShards(q, k, v, options, sharding) : cache.Prefill(q, k, v, options);
    }

    public override void Allocate(KeyValueSharding? sharding, DType? keyValueType, DType? scanStateType)
    {
        if (sharding is not null && keyValueType is not null) throw new NotSupportedException($"KeyValueCache: keys and values on {sharding.World.Size} ranks cannot be kept as {keyValueType}.");
        _sharding = sharding;
        _cache = DecodeCache.Contiguous(device, keyValueType ?? dtype, batch, sharding?.LengthOf(sharding.World.Rank, maxLength) ?? maxLength, groups, headDimension, sharding is null ? window : 0);
    }

    /// <summary>Lengths stand on the device and grow there, by replays of a captured step too: the host's is read anew before it is needed.</summary>
    public override void StayInPlace()
    {
        if (_sharding is not null) throw new NotSupportedException($"Session.Step: keys and values on {_sharding.World.Size} ranks move with a length that the host keeps.");
        _isInPlace = true;
    }

    public override long? ReadLength() => _isInPlace ? _cache!.Lengths.ToArray<long>()[0] : _length;

    public override void Own()
    {
        foreach (Tensor? tensor in Tensors())
            if (tensor is not null) TensorScope.Release(tensor);
    }

    protected override void Dispose(bool disposing)
    {
        foreach (Tensor? tensor in Tensors()) tensor?.Dispose();
    }

    private Tensor?[] Tensors() => _cache is null ? [] : [_cache.Keys, _cache.Values, _cache.Lengths, _cache.Tickets, _cache.Scales];

    /// <summary>One token in one launch: rotation, append and attention, at lengths and positions that the device counts itself.</summary>
    private Tensor Decode(Tensor q, Tensor k, Tensor v, RotaryEmbedding? rotary, AttentionOptions options)
    {
        DecodeRotary? rotation = null;
        if (rotary is not null)
        {
            if (_isInPlace && !rotary.IsAlikeUpTo(_cache!.Capacity))
                throw new NotSupportedException($"Session.Step: this model's rotation depends on the current length beyond its trained one, which the {_cache.Capacity} tokens of the session exceed; open it with a smaller maxLength.");
            (Tensor cosine, Tensor sine) = rotary.Tables(_isInPlace ? _cache!.Capacity : _length + 1);
            rotation = new DecodeRotary(cosine, sine);
        }
        Tensor o = Ops.AttentionDecode(q, k, v, _cache!, rotation, options).O;
        _length++;
        return o;
    }

    private Tensor Prefill(Tensor q, Tensor k, Tensor v, AttentionOptions options)
    {
        if (_isInPlace) _length = ReadLength()!.Value;
        DecodeCache cache = _cache!;
        long before = cache.Window > 0 ? Math.Min(_length, cache.Window - 1) : _length;
        bool isRead = before > 0 && (cache.Window > 0 || cache.Keys.DType != q.DType);
        (Tensor keys, Tensor values) = (k, v);
        if (isRead)                                            // before new keys come into the places of old ones
        {
            (Tensor oldKeys, Tensor oldValues) = Ops.ReadKeyValues(cache, before, q.DType, _length - before);
            (keys, values) = (Ops.Concat(1, oldKeys, k), Ops.Concat(1, oldValues, v));
        }
        Ops.AppendKeyValues(k, v, cache);
        _length += k.Shape[1];
        if (before > 0 && !isRead) (keys, values) = (cache.Keys.Slice(1, 0, _length), cache.Values.Slice(1, 0, _length));
        return Ops.Attention(q, keys, values, options).O;
    }

    private Tensor AttendInShards(Tensor q, Tensor k, Tensor v, AttentionOptions options, KeyValueSharding sharding)
    {
        if (options.Window > 0 || options.Layout is not null) throw new NotSupportedException($"KeyValueCache: a window ({options.Window}) or packed sequences cannot be had with keys and values on {sharding.World.Size} ranks.");
        using TensorScope scope = TensorScope.Enter();
        (Tensor O, Tensor Lse) own = Ops.Attention(q, k, v, options);
        if (_length > 0)
        {
            (Tensor O, Tensor Lse) before = Ops.Attention(q, _cache!.Keys.Slice(1, 0, _ownLength), _cache.Values.Slice(1, 0, _ownLength), options with { IsCausal = false });
            before = sharding.Merge(before.O.To(DType.Float32), before.Lse);
            own = Ops.MergeAttention(before, (own.O.To(DType.Float32), own.Lse));
        }
        AppendInShards(k, v, sharding);
        return scope.Keep(own.O.To(q.DType));
    }

    private void AppendInShards(Tensor keys, Tensor values, KeyValueSharding sharding)
    {
        long steps = keys.Shape[1];
        for (long at = 0; at < steps;)
        {
            long position = _length + at, count = Math.Min(steps - at, sharding.Block - position % sharding.Block);
            if (sharding.OwnerOf(position) == sharding.World.Rank)
            {
                Ops.Copy(keys.Slice(1, at, count), _cache!.Keys.Slice(1, _ownLength, count));
                Ops.Copy(values.Slice(1, at, count), _cache.Values.Slice(1, _ownLength, count));
                _ownLength += count;
            }
            at += count;
        }
        _length += steps;
    }
}
