namespace ZEngine.Tests.Ops;

/// <summary>Appending to a decode cache and reading it; what decoding makes of it is in <see cref="AttentionDecodeTests"/>.</summary>
public sealed class DecodeCacheTests
{
    public static TheoryData<string> OpDevices => [.. Devices.OpNames];

    /// <summary>What was appended in pieces, with strides, for sequences of different lengths, is what is read; what nobody appended reads as 0.</summary>
    [Theory, MemberData(nameof(OpDevices))]
    public void Reads_what_was_appended(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        foreach (int p in (ReadOnlySpan<int>)[5, 16, 80, 256])
        foreach (bool isPaged in (ReadOnlySpan<bool>)[false, true])
        {
            using TensorScope scope = TensorScope.Enter();
            var c = new DecodeCase(2, 2, p, 0, 0, 0) { Capacity = 48 };
            DecodeCache cache = c.NewCache(device, type, isPaged);
            // Keys and values of all heads side by side, as a projection leaves them.
            Tensor both = ZEngine.Ops.RandomNormal([3, 40, 4, p], Device.Cpu, new RandomStream(4)).To(device).To(type);
            ZEngine.Ops.AppendKeyValues(both.Slice(1, 0, 21).Slice(2, 0, 2), both.Slice(1, 0, 21).Slice(2, 2, 2), cache);
            cache.Lengths.Slice(0, 1, 1).CopyFrom<long>([-1]);
            ZEngine.Ops.AppendKeyValues(both.Slice(1, 21, 19).Slice(2, 0, 2), both.Slice(1, 21, 19).Slice(2, 2, 2), cache);
            Assert.Equal([40L, -1, 40], cache.Lengths.ToArray<long>());
            (Tensor keys, Tensor values) = ZEngine.Ops.ReadKeyValues(cache, 45, type);
            float[] want = both.To(DType.Float32).ToArray<float>(), gotKeys = keys.To(DType.Float32).ToArray<float>(), gotValues = values.To(DType.Float32).ToArray<float>();
            for (int i = 0; i < gotKeys.Length; i++)
            {
                (int row, int rest) = Math.DivRem(i, 2 * p);
                (int b, int l) = Math.DivRem(row, 45);
                bool isThere = b != 1 && l < 40;
                Assert.Equal(isThere ? want[(b * 40 + l) * 4 * p + rest] : 0, gotKeys[i]);
                Assert.Equal(isThere ? want[(b * 40 + l) * 4 * p + 2 * p + rest] : 0, gotValues[i]);
            }
        }
    }

    /// <summary>A cache without pages, whose second sequence begins beyond 2³¹ elements; nobody touches what is between.</summary>
    [Theory, InlineData(false), InlineData(true)]
    public void Sequences_beyond_two_to_the_31_elements_are_found(bool isBytes)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long heads = 32, groups = 2, p = 256, far = (1L << 31) / (groups * p) + 2;
        DType stored = isBytes ? DType.Int8 : DType.BFloat16;
        DecodeCache Cache(long capacity)
        {
            Tensor keys = Tensor.Empty([2, capacity, groups, p], stored, counted.Device);
            return new(keys, Tensor.Empty(keys.Shape, stored, counted.Device), Tensor.Zeros([2], DType.Int64, counted.Device), Tensor.Zeros([2, groups + 1], DType.Int32, counted.Device),
                null, isBytes ? Tensor.Empty([2, groups, capacity, 2], DType.Float32, counted.Device) : null);
        }
        Tensor Random(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(DType.BFloat16);
        Tensor k = Random(1, 2, 40, groups, p), v = Random(2, 2, 40, groups, p), q = Random(3, 2, 1, heads, p), next = Random(4, 2, 1, groups, p);
        float[] Decode(DecodeCache cache)
        {
            ZEngine.Ops.AppendKeyValues(k, v, cache);
            float[] o = ZEngine.Ops.AttentionDecode(q, next, next, cache).O.To(DType.Float32).ToArray<float>();
            return [.. o, .. ZEngine.Ops.ReadKeyValues(cache, 41, DType.BFloat16).Values.To(DType.Float32).ToArray<float>()];
        }
        DecodeCache huge = Cache(far);
        Assert.True(huge.Keys.Strides[0] > 1L << 31);
        float[] want = Decode(Cache(4096)), got = Decode(huge);                  // of both several splits
        Assert.Equal(want, got);
        Assert.NotEqual(0, got[0]);
        Assert.NotEqual(0, got[^1]);
    }

    /// <summary>The same bytes and scales on every device; rows of zeros and rows with one element stay what they are; what is not finite does not vanish.</summary>
    [Fact]
    public void Bytes_are_the_nearest_and_the_same_everywhere()
    {
        float[] rows = [.. Enumerable.Range(0, 4 * 24).Select(i => (i / 24) switch { 0 => 0, 1 => i == 30 ? -3 : 0, _ => MathF.Sin(i * i) * i })];
        foreach (int p in (ReadOnlySpan<int>)[24, 12])
        {
            sbyte[]? codes = null;
            float[]? scales = null;
            foreach (string name in Devices.Names)
            {
                using TensorScope scope = TensorScope.Enter();
                Device device = Devices.Open(name);
                DecodeCache cache = DecodeCache.Contiguous(device, DType.Int8, 1, 96 / p, 1, p);
                Tensor x = Tensor.From<float>(rows, [1, 96 / p, 1, p], device);
                ZEngine.Ops.AppendKeyValues(x, x, cache);
                sbyte[] own = cache.Keys.ToArray<sbyte>();
                float[] ownScales = cache.Scales!.ToArray<float>();
                Assert.Equal(codes ??= own, own);
                Assert.Equal(scales ??= ownScales, ownScales);
                for (int i = 0; i < rows.Length; i++)
                {
                    float scale = ownScales[i / p * 2];
                    Assert.True(Math.Abs(own[i] * scale - rows[i]) <= scale / 2 * 1.0001f, $"P {p} on {name}: element {i} is {rows[i]}, stored as {own[i]} with scale {scale}");
                }
            }
        }
        foreach (string name in Devices.Names)
        {
            using TensorScope scope = TensorScope.Enter();
            Device device = Devices.Open(name);
            DecodeCache cache = DecodeCache.Contiguous(device, DType.Int8, 1, 2, 1, 8);
            Tensor x = Tensor.From<float>([1, float.NaN, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, float.PositiveInfinity, 1, 1], [1, 2, 1, 8], device);
            ZEngine.Ops.AppendKeyValues(x, x, cache);
            Assert.DoesNotContain(ZEngine.Ops.ReadKeyValues(cache, 2, DType.Float32).Keys.ToArray<float>(), float.IsFinite);
        }
    }
}
