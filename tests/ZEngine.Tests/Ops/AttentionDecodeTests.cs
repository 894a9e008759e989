using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Interop;

namespace ZEngine.Tests.Ops;

public sealed class AttentionDecodeTests
{
    private static DecodeCase[] Sizes() =>
    [
        new(1, 1, 16, 0),
        new(4, 2, 16, 5, 0, 31, 64) { Pairs = 8 },
        new(8, 2, 80, 40, -1, 70) { Pairs = 40, Capacity = 80 },
        new(4, 1, 224, 33) { Pairs = 16, Style = RotaryStyle.Interleaved },
        new(2, 2, 256, 20, 63) { Pairs = 128 },
        new(3, 1, 6, 9, 2) { Pairs = 2, Style = RotaryStyle.Interleaved },
        new(2, 1, 13, 50) { Scale = 1 },
        new(20, 1, 24, 66, 3) { Pairs = 12 },
        new(4, 4, 32, 90, 10, 4) { Window = 7, Pairs = 16 },
        new(2, 1, 40, 65, 64) { Window = 33, SoftCap = 3 },
        new(2, 1, 16, 700, 513, 256, 255, 12) { Capacity = 800, Pairs = 8 },
        new(4, 2, 24, 600) { Capacity = 640, Window = 300 },
        new(2, 1, 16, 40) { Shift = 5 },
        new(2, 2, 64, 94) { Seed = 5 },
    ];

    public static IEnumerable<TheoryDataRow<int, string, bool, bool>> Cases() =>
        from index in Enumerable.Range(0, Sizes().Length)
        from device in Devices.OpNames
        from isPaged in new[] { false, true }
        from isBytes in new[] { false, true }
        select new TheoryDataRow<int, string, bool, bool>(index, device, isPaged, isBytes) { TestDisplayName = $"Decode {Sizes()[index]}{(isPaged ? ", paged" : "")}{(isBytes ? ", bytes" : "")} on {device}" };

    private static Func<float, float> RoundOf(DType type) => type == DType.BFloat16 ? x => (float)(BFloat16)x : x => x;

    /// <summary>The definition, over what the cache holds; and the cache holds the rotated key and the value. As bytes, it holds them within half a step of each row.</summary>
    [Theory, MemberData(nameof(Cases))]
    public void Equals_the_definition(int index, string deviceName, bool isPaged, bool isBytes)
    {
        DecodeCase c = Sizes()[index];
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        using TensorScope scope = TensorScope.Enter();
        long buffers = Devices.LiveBuffers(device);
        using (TensorScope inner = TensorScope.Enter())
        {
            DecodeCache cache = c.Filled(device, type, isPaged, isBytes);
            (float[] o, float[] lse) = c.Decode(device, type, cache);
            Assert.Equal([.. c.Lengths.Select(length => length < 0 ? length : length + 1L)], cache.Lengths.ToArray<long>());
            Assert.All(cache.Tickets.ToArray<int>(), ticket => Assert.Equal(0, ticket));
            int rows = c.Lengths.Max() + 1;
            (Tensor storedKeys, Tensor storedValues) = ZEngine.Ops.ReadKeyValues(cache, rows, type);
            float[] keys = storedKeys.To(DType.Float32).ToArray<float>(), values = storedValues.To(DType.Float32).ToArray<float>();
            SameRows(c, c.Stored(isKey: true, rows, RoundOf(type)), keys, isBytes, type);
            SameRows(c, c.Stored(isKey: false, rows, RoundOf(type)), values, isBytes, type);
            (double[] wantO, double[] wantLse) = c.Expected(keys, values, rows, RoundOf(type));
            // In 16 bits the rotated query, the probabilities and o are rounded; keys, values and sums are not.
            (double tolerance, double lseTolerance) = type == DType.Float32 ? (2e-5, 2e-5 * (1 + 100 * c.Shift)) : (0.03, c.Pairs > 0 ? 0.03 : 1e-4 * (1 + 100 * c.Shift));
            for (int i = 0; i < o.Length; i++) if (!(Math.Abs(wantO[i] - o[i]) <= tolerance * (1 + c.Shift))) Assert.Fail($"o at {i}: got {o[i]:R}, want {wantO[i]:R}");
            for (int i = 0; i < lse.Length; i++) if (wantLse[i] != lse[i] && !(Math.Abs(wantLse[i] - lse[i]) <= lseTolerance)) Assert.Fail($"lse at {i}: got {lse[i]:R}, want {wantLse[i]:R}");
            if (name != "emulator") return;
            using TensorScope again = TensorScope.Enter();
            Device scrambled = Devices.Open("scrambled emulator");
            Assert.Equal(o, c.Decode(scrambled, type, c.Filled(scrambled, type, isPaged, isBytes)).O);
        }
        Assert.Equal(buffers, device.LiveBuffers);
    }

    private static void SameRows(DecodeCase c, float[] want, float[] got, bool isBytes, DType type)
    {
        for (int row = 0; row < want.Length / c.P; row++)
        {
            float most = want.AsSpan(row * c.P, c.P).ToArray().Max(MathF.Abs), unit = type == DType.Float32 ? 1e-6f : 1f / 128;
            for (int i = row * c.P; i < (row + 1) * c.P; i++)
                if (!(Math.Abs(want[i] - got[i]) <= (isBytes ? most / 127 / 2 * 1.001f + unit * most : unit * Math.Abs(want[i]) + 1e-6f))) Assert.Fail($"row {row} at {i}: got {got[i]:R}, want {want[i]:R}, largest {most:R}");
        }
    }

    public static TheoryData<string> OpDevices => [.. Devices.OpNames];

    [Theory, MemberData(nameof(OpDevices))]
    public void Pages_and_other_sequences_change_no_bit(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        using TensorScope scope = TensorScope.Enter();
        var all = new DecodeCase(4, 2, 80, 0, 300, 17, 64, 259) { Pairs = 40, Capacity = 320 };
        foreach (bool isBytes in (ReadOnlySpan<bool>)[false, true])
        {
            (float[] o, float[] lse) = all.Decode(device, type, all.Filled(device, type, isPaged: false, isBytes));
            (float[] pagedO, float[] pagedLse) = all.Decode(device, type, all.Filled(device, type, isPaged: true, isBytes));
            Assert.Equal(o, pagedO);
            Assert.Equal(lse, pagedLse);
            DecodeCache cache = all.Filled(device, type, isPaged: true, isBytes);
            Tensor q = all.Next(0, device, type), k = all.Next(3, device, type), v = all.Next(4, device, type);
            for (int b = 0; b < all.Batch; b++)
            {
                (Tensor one, Tensor oneLse) = ZEngine.Ops.AttentionDecode(q.Slice(0, b, 1), k.Slice(0, b, 1), v.Slice(0, b, 1), cache.Slice(b, 1), all.Rotary(device), all.Options);
                Assert.Equal(o[(b * 320)..(b * 320 + 320)], one.To(DType.Float32).ToArray<float>());
                Assert.Equal(lse[(b * 4)..(b * 4 + 4)], oneLse.ToArray<float>());
            }
        }
    }

    /// <summary>Token by token from an empty cache, through edges of tiles and pages, is the attention of the whole text, row by row.</summary>
    [Theory, MemberData(nameof(OpDevices))]
    public void Decoding_a_text_is_its_prefill(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        using TensorScope scope = TensorScope.Enter();
        const int L = 70, H = 4, G = 2, P = 24, Pairs = 12;
        var c = new DecodeCase(H, G, P, 0) { Pairs = Pairs, Capacity = L };
        Tensor Text(ulong seed, long heads) => ZEngine.Ops.RandomNormal([1, L, heads, P], Device.Cpu, new RandomStream(seed)).To(device).To(type);
        Tensor q = Text(1, H), k = Text(2, G), v = Text(3, G);
        DecodeRotary rotary = c.Rotary(device)!;
        foreach (int window in (ReadOnlySpan<int>)[0, 9])
        {
            var options = new AttentionOptions(Window: window, SoftCap: 4);
            Tensor rotatedQ = ZEngine.Ops.Rope(q, rotary.Cosine, rotary.Sine), rotatedK = ZEngine.Ops.Rope(k, rotary.Cosine, rotary.Sine);
            float[] want = ZEngine.Ops.Attention(rotatedQ, rotatedK, v, options).O.To(DType.Float32).ToArray<float>();
            DecodeCache cache = c.NewCache(device, type, isPaged: true);
            for (int l = 0; l < L; l++)
            {
                using TensorScope step = TensorScope.Enter();
                float[] got = ZEngine.Ops.AttentionDecode(q.Slice(1, l, 1), k.Slice(1, l, 1), v.Slice(1, l, 1), cache, rotary, options).O.To(DType.Float32).ToArray<float>();
                for (int i = 0; i < got.Length; i++) Assert.Equal(want[l * H * P + i], got[i], type == DType.Float32 ? 1e-5f : 0.06f);
            }
        }
    }

    /// <summary>
    /// A cache with a window is a ring: its memory is that of the next power of two however long the text, and it gives the bits of one that keeps all, for sequences of
    /// different lengths, token by token across the ring's end, and after prompts longer than the ring.
    /// </summary>
    [Theory, MemberData(nameof(OpDevices))]
    public void A_ring_gives_the_bits_of_all_positions(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        const int H = 4, G = 2, P = 24, B = 4, MaxLength = 300;
        int[] prompts = [0, 9, 37, -1];
        foreach (bool isBytes in (ReadOnlySpan<bool>)[false, true])
        foreach (int window in (ReadOnlySpan<int>)[1, 9, 16])
        {
            using TensorScope scope = TensorScope.Enter();
            Tensor Random(ulong seed, params ReadOnlySpan<long> shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(seed)).To(device).To(type);
            DType stored = isBytes ? DType.Int8 : type;
            DecodeCache ring = DecodeCache.Contiguous(device, stored, B, MaxLength, G, P, window), all = DecodeCache.Contiguous(device, stored, B, MaxLength, G, P);
            Assert.Equal(Math.Max(2, (long)System.Numerics.BitOperations.RoundUpToPowerOf2((uint)window)), ring.Keys.Shape[1]);
            Assert.Equal((MaxLength, MaxLength), (ring.Capacity, all.Capacity));
            for (int b = 0; b < B; b++)
                foreach (DecodeCache cache in (ReadOnlySpan<DecodeCache>)[ring, all])
                {
                    if (prompts[b] < 0) cache.Lengths.Slice(0, b, 1).CopyFrom<long>([prompts[b]]);
                    if (prompts[b] > 0) ZEngine.Ops.AppendKeyValues(Random((ulong)b + 1, 1, prompts[b], G, P), Random((ulong)b + 11, 1, prompts[b], G, P), cache.Slice(b, 1));
                }
            DecodeRotary rotary = new DecodeCase(H, G, P, 0) { Pairs = 12, Capacity = MaxLength }.Rotary(device)!;
            for (int step = 0; step < 40; step++)
            {
                using TensorScope inner = TensorScope.Enter();
                ulong seed = 100 + 10 * (ulong)step;
                Tensor q = Random(seed, B, 1, H, P), k = Random(seed + 1, B, 1, G, P), v = Random(seed + 2, B, 1, G, P);
                var options = new AttentionOptions(Window: window);
                (Tensor wantO, Tensor wantLse) = ZEngine.Ops.AttentionDecode(q, k, v, all, rotary, options);
                (Tensor o, Tensor lse) = ZEngine.Ops.AttentionDecode(q, k, v, ring, rotary, options);
                Assert.Equal(wantO.To(DType.Float32).ToArray<float>(), o.To(DType.Float32).ToArray<float>());
                Assert.Equal(wantLse.ToArray<float>(), lse.ToArray<float>());
            }
            Assert.Equal(all.Lengths.ToArray<long>(), ring.Lengths.ToArray<long>());
            (Tensor keys, Tensor values) = ZEngine.Ops.ReadKeyValues(ring.Slice(2, 1), window, type, 77 - window);
            (Tensor wantKeys, Tensor wantValues) = ZEngine.Ops.ReadKeyValues(all.Slice(2, 1), window, type, 77 - window);
            Assert.Equal(wantKeys.To(DType.Float32).ToArray<float>(), keys.To(DType.Float32).ToArray<float>());
            Assert.Equal(wantValues.To(DType.Float32).ToArray<float>(), values.To(DType.Float32).ToArray<float>());
        }
    }

    [Fact]
    public void A_ring_shows_no_more_than_its_window()
    {
        using TensorScope scope = TensorScope.Enter();
        DecodeCache ring = DecodeCache.Contiguous(Device.Cpu, DType.Float32, 1, 100, 1, 8, 9);
        Tensor q = Tensor.Zeros([1, 1, 1, 8], DType.Float32, Device.Cpu);
        string Message(Action call) => Assert.Throws<ArgumentException>(call).Message;
        Assert.Equal("AttentionDecode: the cache keeps 9 positions: Window must be from 1 to that, got 0.", Message(() => ZEngine.Ops.AttentionDecode(q, q, q, ring)));
        Assert.Equal("AttentionDecode: the cache keeps 9 positions: Window must be from 1 to that, got 10.", Message(() => ZEngine.Ops.AttentionDecode(q, q, q, ring, options: new AttentionOptions(Window: 10))));
        Assert.Equal("AttentionDecode: a cache with a window of 17 needs positions of a power of two from there on, got 16.", Message(() => ZEngine.Ops.AttentionDecode(q, q, q, ring with { Window = 17 }, options: new AttentionOptions(Window: 9))));
        Assert.Equal("AttentionDecode: cache.MaxLength belongs to a window without pages, got 100.", Message(() => ZEngine.Ops.AttentionDecode(q, q, q, ring with { Window = 0 })));
        Tensor text = Tensor.Zeros([1, 100, 1, 8], DType.Float32, Device.Cpu);
        ZEngine.Ops.AppendKeyValues(text, text, ring);
        Assert.Equal("AttentionDecode: sequence 0 has 100 of 100 tokens, 1 more do not fit into the cache.", Message(() => ZEngine.Ops.AttentionDecode(q, q, q, ring, options: new AttentionOptions(Window: 9))));
        // What fits as it is needs no ring.
        Assert.Equal((0, 10), (DecodeCache.Contiguous(Device.Cpu, DType.Float32, 1, 10, 1, 8, 9).Window, DecodeCache.Contiguous(Device.Cpu, DType.Float32, 1, 10, 1, 8, 9).Keys.Shape[1]));
    }

    /// <summary>Keys in two caches, wherever they are cut, give with their merge what one cache gives; one of them may be empty.</summary>
    [Theory, MemberData(nameof(OpDevices))]
    public void Keys_split_anywhere_merge_to_the_whole(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        using TensorScope scope = TensorScope.Enter();
        const int L = 60;
        var c = new DecodeCase(4, 2, 16, L);
        Tensor q = c.Next(0, device, type);
        Tensor Text(ulong seed) => ZEngine.Ops.RandomNormal([1, L, 2, 16], Device.Cpu, new RandomStream(seed)).To(device).To(type);
        Tensor k = Text(2), v = Text(3);
        (Tensor O, Tensor Lse) Part(int from, int to)
        {
            DecodeCache cache = c.NewCache(device, type, isPaged: false);
            if (to > from) ZEngine.Ops.AppendKeyValues(k.Slice(1, from, to - from), v.Slice(1, from, to - from), cache);
            return ZEngine.Ops.AttentionDecode(q, null, null, cache);
        }
        (Tensor whole, Tensor wholeLse) = Part(0, L);
        foreach (int cut in (ReadOnlySpan<int>)[0, 1, 31, 32, 47, L])
        {
            (Tensor merged, Tensor mergedLse) = ZEngine.Ops.MergeAttention(Part(0, cut), Part(cut, L));
            float[] want = whole.To(DType.Float32).ToArray<float>(), got = merged.To(DType.Float32).ToArray<float>();
            for (int i = 0; i < want.Length; i++) Assert.Equal(want[i], got[i], type == DType.Float32 ? 2e-6f : 0.02f);
            for (int h = 0; h < 4; h++) Assert.Equal(wholeLse.ToArray<float>()[h], mergedLse.ToArray<float>()[h], 1e-5f);
        }
    }

    /// <summary>
    /// With a score's error e = |scale|·Σ_p |q_p|·s_k / 2, the largest over the keys, and values off by s_v / 2 at most, o is off by at most max |v|·(exp(2e) − 1) + s_v / 2.
    /// </summary>
    [Fact]
    public void Bytes_stay_within_their_bound()
    {
        using TensorScope scope = TensorScope.Enter();
        var c = new DecodeCase(4, 2, 64, 90, 7);
        Device device = Device.Cpu;
        (float[] exact, _) = c.Decode(device, DType.Float32, c.Filled(device, DType.Float32));
        DecodeCache cache = c.Filled(device, DType.Float32, isBytes: true);
        (float[] got, _) = c.Decode(device, DType.Float32, cache);
        float[] scales = cache.Scales!.ToArray<float>();
        double worst = 0;
        for (int b = 0; b < c.Batch; b++)
        for (int h = 0; h < c.Heads; h++)
        {
            int at = (b * c.Groups + h / 2) * c.Capacity * 2;
            double q = c.Values(0, b, 1, c.Heads).Skip(h * c.P).Take(c.P).Sum(x => (double)Math.Abs(x)), keyScale = 0, valueScale = 0;
            for (int j = 0; j <= c.Lengths[b]; j++) (keyScale, valueScale) = (Math.Max(keyScale, scales[at + 2 * j]), Math.Max(valueScale, scales[at + 2 * j + 1]));
            double e = q / Math.Sqrt(c.P) * keyScale / 2, bound = 127 * valueScale * (Math.Exp(2 * e) - 1) + valueScale / 2 + 1e-5;
            for (int p = 0; p < c.P; p++)
            {
                int i = (b * c.Heads + h) * c.P + p;
                worst = Math.Max(worst, Math.Abs(exact[i] - got[i]));
                Assert.InRange(Math.Abs(exact[i] - got[i]), 0, bound);
            }
        }
        Assert.InRange(worst, 1e-4, 0.05);                     // it is quantised, and far better than the bound
    }

    /// <summary>One captured launch decodes token after token: lengths and positions are the device's own.</summary>
    [Fact]
    public void A_captured_launch_replays_with_growing_lengths()
    {
        using var driver = new EmulatedCudaDriver(new EmulatorOptions { Checks = EmulatorChecks.Deep });
        using CudaDevice device = Devices.OpenEmulated(driver);
        using TensorScope scope = TensorScope.Enter();
        const int Steps = 40;
        var c = new DecodeCase(4, 2, 16, 250, 3) { Pairs = 8, Capacity = 300 };
        DecodeCache plain = c.Filled(device, DType.BFloat16), captured = c.Filled(device, DType.BFloat16);
        DecodeRotary rotary = c.Rotary(device)!;
        Tensor q = c.Next(0, device, DType.BFloat16), k = c.Next(3, device, DType.BFloat16), v = c.Next(4, device, DType.BFloat16);
        c.Filled(device, DType.BFloat16);
        ZEngine.Ops.AttentionDecode(q, k, v, c.Filled(device, DType.BFloat16), rotary, c.Options);
        Tensor? o = null;
        using CudaGraph graph = device.Capture(() => o = ZEngine.Ops.AttentionDecode(q, k, v, captured, rotary, c.Options).O);
        for (int i = 0; i < Steps; i++)
        {
            using TensorScope step = TensorScope.Enter();
            DecodeCase next = c with { Seed = 100 + (ulong)i };
            q.CopyFrom<BFloat16>(next.Next(0, Device.Cpu, DType.BFloat16).ToArray<BFloat16>());
            k.CopyFrom<BFloat16>(next.Next(3, Device.Cpu, DType.BFloat16).ToArray<BFloat16>());
            v.CopyFrom<BFloat16>(next.Next(4, Device.Cpu, DType.BFloat16).ToArray<BFloat16>());
            float[] want = ZEngine.Ops.AttentionDecode(q, k, v, plain, rotary, c.Options).O.To(DType.Float32).ToArray<float>();
            graph.Launch();
            Assert.Equal(want, o!.To(DType.Float32).ToArray<float>());
        }
        Assert.Equal([250L + Steps, 3L + Steps], captured.Lengths.ToArray<long>());
        o!.Dispose();
    }

    [Fact]
    public void A_full_cache_is_an_error()
    {
        using TensorScope scope = TensorScope.Enter();
        var c = new DecodeCase(1, 1, 16, 8, 3) { Capacity = 8, Pairs = 8 };
        DecodeCache cache = c.Filled(Device.Cpu, DType.Float32);
        Assert.Equal("AttentionDecode: sequence 0 has 8 of 8 tokens, 1 more do not fit into the cache.", Assert.Throws<ArgumentException>(() => c.Decode(Device.Cpu, DType.Float32, cache)).Message);
        Assert.Equal([8L, 3L], cache.Lengths.ToArray<long>());
        var wide = new DecodeCase(1, 1, 16, 8) { Capacity = 9, Pairs = 8 };
        DecodeRotary rotary = wide.Rotary(Device.Cpu)!;
        Tensor q = wide.Next(0, Device.Cpu, DType.Float32);
        Assert.Contains("position 8, but rotary.Cosine [8, 8] has 8", Assert.Throws<ArgumentException>(() => ZEngine.Ops.AttentionDecode(q, q, q, wide.Filled(Device.Cpu, DType.Float32),
            new DecodeRotary(rotary.Cosine.Slice(0, 0, 8), rotary.Sine.Slice(0, 0, 8)))).Message, StringComparison.Ordinal);

        using var driver = new EmulatedCudaDriver(new EmulatorOptions { Checks = EmulatorChecks.None });
        using CudaDevice device = Devices.OpenEmulated(driver);
        using TensorScope own = TensorScope.Enter();
        DecodeCache full = c.Filled(device, DType.Float32);
        device.Synchronize();
        Assert.ThrowsAny<CudaException>(() => c.Decode(device, DType.Float32, full));
    }

    [Fact]
    public void What_a_device_does_not_take_is_told()
    {
        using TensorScope scope = TensorScope.Enter();
        Device device = Devices.Open("emulator");
        var c = new DecodeCase(1, 1, 264, 0);
        Assert.Equal("AttentionDecode: cache.Keys has heads of 264 channels, a CUDA device takes at most 256.", Assert.Throws<NotSupportedException>(() => c.Decode(device, DType.Float32, c.NewCache(device, DType.Float32, isPaged: false))).Message);
        var paged = new DecodeCase(1, 1, 16, 0);
        DecodeCache cache = paged.NewCache(Device.Cpu, DType.Float32, isPaged: true);
        Tensor small = Tensor.Zeros([48, 8, 1, 16], DType.Float32, Device.Cpu), q = paged.Next(0, Device.Cpu, DType.Float32);
        Assert.Contains("16 positions or a larger power of two", Assert.Throws<ArgumentException>(() => ZEngine.Ops.AttentionDecode(q, q, q, cache with { Keys = small, Values = small })).Message, StringComparison.Ordinal);
        Assert.Equal("AttentionDecode: cache.Scales belong to Int8 keys and values.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.AttentionDecode(q, q, q, cache with { Scales = small })).Message);
    }
}
