using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class TreeAttentionTests
{
    internal static Tensors Apply(EngineInputs x) => Apply(x, 0);

    private static Tensors Apply(EngineInputs x, int groupSize)
    {
        int[] ends = x.Attrs.Ints("shards")!;
        (Tensor, Tensor)[] shards = [.. Enumerable.Range(0, ends.Length - 1).Select(i => (Part(x["k"], ends[i], ends[i + 1]), Part(x["v"], ends[i], ends[i + 1])))];
        var options = new AttentionOptions(x.Attrs.Flag("causal"), (float?)x.Attrs.Number("scale"), SoftCap: (float)(x.Attrs.Number("softcap") ?? 0));
        (Tensor o, Tensor lse) = ZEngine.Ops.TreeAttention(x["q"], shards, options, groupSize);
        return new() { ["o"] = o, ["lse"] = lse };
    }

    private static Tensor Part(Tensor keys, long from, long to) => keys.Slice(1, from, to - from);

    private static CaseBuilder Shards(string reason, int queries, int heads, int groups, int p, int batch, params int[] ends) => Case("tree_attention", reason).With("shards", ends)
        .Normal("q", [batch, queries, heads, p]).Normal("k", [batch, ends[^1], groups, p]).Normal("v", [batch, ends[^1], groups, p]);

    private static OpCase[] Sizes() =>
    [
        Shards("one shard", 1, 2, 1, 5, 1, 0, 9).Build("o", "lse"),
        Shards("decode, grouped heads", 1, 4, 2, 16, 2, 0, 40, 300, 301).Build("o", "lse"),
        Shards("empty shards everywhere", 1, 2, 2, 7, 1, 0, 0, 0, 5, 5, 20, 20).Build("o", "lse"),
        Shards("several queries, no mask", 5, 2, 1, 8, 1, 0, 3, 60, 130).Build("o", "lse"),
        Shards("seven shards", 1, 2, 1, 12, 1, 0, 4, 5, 9, 9, 30, 31, 40).Build("o", "lse"),
        Shards("large scores", 1, 2, 1, 16, 1, 0, 20, 40, 64).With("scale", 8.0).Build("none"),
        Shards("a scale of one", 1, 2, 1, 16, 1, 0, 20, 40, 64).With("scale", 1.0).Build("o", "lse"),
        Shards("soft cap", 2, 2, 1, 8, 1, 0, 10, 33).With("softcap", 2.0).Build("o", "lse"),
    ];

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times(Sizes());

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device)
    {
        EngineOp.Check(c, device);
        foreach (int groupSize in (ReadOnlySpan<int>)[2, 3]) EngineOp.Check(c, device, x => Apply(x, groupSize));
    }

    private static Tensor Random(ulong stream, params long[] shape) => Random(Device.Cpu, stream, shape);

    private static Tensor Random(Device device, ulong stream, params long[] shape) => ZEngine.Ops.RandomNormal(shape, device, new RandomStream(3, stream));

    [Theory]
    [InlineData(0), InlineData(2), InlineData(4)]
    public void Any_tree_equals_attention_over_all_keys(int groupSize)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor q = Random(1, 2, 3, 4, 16), k = Random(2, 2, 200, 2, 16), v = Random(3, 2, 200, 2, 16);
        (Tensor wantO, Tensor wantLse) = ZEngine.Ops.Attention(q, k, v);
        long[] ends = [0, 0, 10, 11, 11, 50, 120, 121, 190, 200, 200];
        (Tensor, Tensor)[] shards = [.. Enumerable.Range(0, ends.Length - 1).Select(i => (Part(k, ends[i], ends[i + 1]), Part(v, ends[i], ends[i + 1])))];
        (Tensor o, Tensor lse) = ZEngine.Ops.TreeAttention(q, shards, groupSize: groupSize);
        Near(wantO, o, 2e-6f);
        Near(wantLse, lse, 2e-6f);
    }

    /// <summary>Shards on devices of their own give what one device gives, to the bit what it gives for the same shards; an empty one and logits of ±100 included.</summary>
    [Theory]
    [InlineData(0, 0f), InlineData(2, 0f), InlineData(0, 5f), InlineData(3, -5f)]
    public void Shards_on_several_devices_equal_one(int groupSize, float shift)
    {
        using var driver = new EmulatedCudaDriver(new EmulatorOptions { Devices = 3 });
        _ = Devices.Open("emulator");                          // the compiler is there
        CudaDevice[] devices = [.. Enumerable.Range(0, 3).Select(i => CudaDevice.Open(i, driver))];
        using (TensorScope scope = TensorScope.Enter())
        {
            // Scores of about ±100: 16 channels of 5 · 5 / 4.
            Tensor Shifted(ulong seed, float by, params long[] shape) => ZEngine.Ops.Add(Random(seed, shape), Tensor.From<float>([by], [1], Device.Cpu));
            Tensor q = Shifted(1, MathF.Abs(shift), 1, 1, 4, 16), k = Shifted(2, shift, 1, 60, 2, 16), v = Random(3, 1, 60, 2, 16);
            (Tensor wantO, Tensor wantLse) = ZEngine.Ops.Attention(q, k, v);
            long[] ends = [0, 11, 11, 40, 60];
            (Tensor, Tensor)[] Shards(Func<int, Device> place) =>
                [.. Enumerable.Range(0, 4).Select(i => (Part(k, ends[i], ends[i + 1]).Clone().To(place(i)), Part(v, ends[i], ends[i + 1]).Clone().To(place(i))))];
            Tensor near = q.To(devices[0]);
            (Tensor o, Tensor lse) = ZEngine.Ops.TreeAttention(near, Shards(i => devices[i % 3]), groupSize: groupSize);
            (Tensor again, Tensor againLse) = ZEngine.Ops.TreeAttention(near, Shards(i => devices[i % 3]), groupSize: groupSize);
            (Tensor alone, Tensor aloneLse) = ZEngine.Ops.TreeAttention(near, Shards(_ => devices[0]), groupSize: groupSize);
            Assert.Equal(devices[0], o.Device);
            Near(wantO, o, 5e-6f * (1 + MathF.Abs(shift)));     // a score of 100 is itself rounded to 4e-6
            Near(wantLse, lse, 2e-6f * (1 + 20 * MathF.Abs(shift)));
            foreach ((Tensor other, Tensor otherLse) in ((Tensor, Tensor)[])[(again, againLse), (alone, aloneLse)])
            {
                Assert.Equal(o.ToArray<float>(), other.ToArray<float>());
                Assert.Equal(lse.ToArray<float>(), otherLse.ToArray<float>());
            }
            using Tape tape = Tape.Begin();
            tape.Watch(near);
            Assert.Contains("gradients do not cross devices", Assert.Throws<InvalidOperationException>(() => ZEngine.Ops.TreeAttention(near, Shards(i => devices[i % 3]))).Message, StringComparison.Ordinal);
        }
        foreach (CudaDevice device in devices) device.Dispose();
    }

    private static void Near(Tensor want, Tensor got, float tolerance)
    {
        (float[] a, float[] b) = (want.ToArray<float>(), got.ToArray<float>());
        for (int i = 0; i < a.Length; i++) Assert.Equal(a[i], b[i], tolerance);
    }

    [Theory]
    [InlineData(100f), InlineData(-100f), InlineData(3e4f)]
    public void Parts_far_apart_merge_without_overflow(float distance)
    {
        foreach (string name in Devices.Names) Merge(Devices.Open(name), distance);
    }

    private static void Merge(Device device, float distance)
    {
        using Tape tape = Tape.Begin();
        Tensor a = tape.Watch(Random(device, 1, 1, 1, 2, 5)), b = tape.Watch(Random(device, 2, 1, 1, 2, 5));
        Tensor lseA = tape.Watch(Tensor.From<float>([distance, 0], [1, 1, 2], device)), lseB = tape.Watch(Tensor.From<float>([-distance, 0], [1, 1, 2], device));
        (Tensor o, Tensor lse) = ZEngine.Ops.MergeAttention((a, lseA), (b, lseB));
        Assert.Equal((distance > 0 ? a : b).ToArray<float>()[..5], o.ToArray<float>()[..5]);
        Assert.Equal(Math.Abs(distance), lse.ToArray<float>()[0]);
        Assert.Equal(Math.Log(2), lse.ToArray<float>()[1], 1e-7);
        tape.Backward([o, lse], [Random(device, 3, 1, 1, 2, 5), Random(device, 4, 1, 1, 2)]);
        foreach (Tensor input in (ReadOnlySpan<Tensor>)[a, b, lseA, lseB]) Assert.All(tape.GradientOf(input).ToArray<float>(), value => Assert.True(float.IsFinite(value)));
    }

    [Fact]
    public void Without_any_key_the_output_is_zero_and_gradients_are_zero()
    {
        using Tape tape = Tape.Begin();
        Tensor q = tape.Watch(Random(1, 1, 1, 2, 4)), none = Tensor.Zeros([1, 0, 1, 4], DType.Float32, Device.Cpu);
        (Tensor o, Tensor lse) = ZEngine.Ops.TreeAttention(q, [(none, none), (none, none), (none, none)], groupSize: 2);
        Assert.All(o.ToArray<float>(), value => Assert.Equal(0, value));
        Assert.All(lse.ToArray<float>(), value => Assert.Equal(float.NegativeInfinity, value));
        tape.Backward([o, lse], [Random(2, 1, 1, 2, 4), Random(3, 1, 1, 2)]);
        Assert.All(tape.GradientOf(q).ToArray<float>(), value => Assert.Equal(0, value));
    }

    public static TheoryData<string> DeviceNames => [.. Devices.Names];

    [Theory, MemberData(nameof(DeviceNames))]
    public void Order_of_the_parts_changes_rounding_at_most(string device)
    {
        using TensorScope scope = TensorScope.Enter();
        Device on = Devices.Open(device);
        (Tensor, Tensor)[] parts = [.. Enumerable.Range(0, 6).Select(i => (Random(on, (ulong)i, 2, 1, 3, 9), Random(on, 20 + (ulong)i, 2, 1, 3)))];
        (Tensor o, Tensor lse) = ZEngine.Ops.MergeAttention(parts);
        (Tensor again, _) = ZEngine.Ops.MergeAttention(parts);
        Assert.Equal(o.ToArray<float>(), again.ToArray<float>());
        (Tensor reversed, Tensor reversedLse) = ZEngine.Ops.MergeAttention([.. parts.Reverse()]);
        Near(o, reversed, 1e-6f);
        Near(lse, reversedLse, 1e-6f);
        (Tensor left, Tensor leftLse) = ZEngine.Ops.MergeAttention(parts.AsSpan(0, 3));
        (Tensor right, Tensor rightLse) = ZEngine.Ops.MergeAttention(parts.AsSpan(3, 3));
        (Tensor levels, Tensor levelsLse) = ZEngine.Ops.MergeAttention((left, leftLse), (right, rightLse));
        Near(o, levels, 1e-6f);
        Near(lse, levelsLse, 1e-6f);
    }

    /// <summary>Widths that fit a group of lanes, need tails or several rounds; empty parts; every type; against the formulas in double.</summary>
    [Theory]
    [InlineData(1, 8, 3), InlineData(5, 64, 7), InlineData(3, 9, 2), InlineData(2, 272, 4), InlineData(1, 37, 64), InlineData(4, 1, 3)]
    public void Merges_and_gradients_equal_the_formulas(int rows, int width, int count)
    {
        foreach (string name in Devices.Names)
        foreach (DType dtype in (ReadOnlySpan<DType>)(name == "cpu" ? [DType.Float32] : [DType.Float32, DType.BFloat16, DType.Float16]))
            CheckMerge(Devices.Open(name), dtype, rows, width, count, dtype == DType.Float32 ? 3e-6 : dtype == DType.Float16 ? 2e-3 : 1.5e-2);
    }

    private static void CheckMerge(Device device, DType dtype, int rows, int width, int count, double tolerance)
    {
        using Tape tape = Tape.Begin();
        var parts = new (Tensor O, Tensor Lse)[count];
        for (int i = 0; i < count; i++)
        {
            float[] own = Random((ulong)(100 + i), rows).ToArray<float>();
            for (int r = 0; r < rows; r++) if ((r + i) % 3 == 1) own[r] = float.NegativeInfinity;
            parts[i] = (tape.Watch(Random(device, (ulong)i, 1, rows, 1, width).To(dtype).Clone()), tape.Watch(Tensor.From<float>(own, [1, rows, 1], device)));
        }
        (Tensor o, Tensor lse) = ZEngine.Ops.MergeAttention(parts);
        Tensor dO = Random(device, 50, 1, rows, 1, width).To(dtype), dLse = Random(device, 51, 1, rows, 1);
        tape.Backward([o, lse], [dO, dLse]);
        float[] Floats(Tensor x) => x.To(DType.Float32).ToArray<float>();
        float[][] partO = [.. parts.Select(part => Floats(part.O))], partLse = [.. parts.Select(part => Floats(part.Lse))];
        float[][] gradO = new float[count][], gradLse = new float[count][];
        for (int i = 0; i < count; i++) (gradO[i], gradLse[i]) = (Floats(tape.GradientOf(parts[i].O)), Floats(tape.GradientOf(parts[i].Lse)));
        float[] gotO = Floats(o), gotLse = Floats(lse), d = Floats(dO), dl = Floats(dLse);
        for (int r = 0; r < rows; r++)
        {
            double sum = partLse.Sum(x => Math.Exp(x[r]));
            if (sum == 0) Assert.Equal(float.NegativeInfinity, gotLse[r]);
            else Assert.Equal(Math.Log(sum), gotLse[r], 2e-6);
            double[] share = [.. partLse.Select(x => sum == 0 ? 0 : Math.Exp(x[r]) / sum)];
            var want = new double[width];
            for (int p = 0; p < width; p++)
            {
                for (int i = 0; i < count; i++) want[p] += share[i] * partO[i][r * width + p];
                Assert.Equal(want[p], gotO[r * width + p], tolerance);
            }
            for (int i = 0; i < count; i++)
            {
                double dot = 0, size = 1;
                for (int p = 0; p < width; p++)
                {
                    dot += d[r * width + p] * (partO[i][r * width + p] - want[p]);
                    size += Math.Abs(d[r * width + p]);
                    Assert.Equal(share[i] * d[r * width + p], gradO[i][r * width + p], tolerance);
                }
                Assert.Equal(share[i] * (dot + dl[r]), gradLse[i][r], tolerance * size);
            }
        }
    }

    [Fact]
    public void Traffic_of_a_merge_is_one_read_of_every_part()
    {
        using var probe = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const int R = 16, P = 64, Parts = 4, Lanes = 8;
        (Tensor, Tensor)[] parts = [.. Enumerable.Range(0, Parts).Select(i => (Random(probe.Device, (ulong)i, 1, R, 1, P).To(DType.BFloat16), Random(probe.Device, 20, 1, R, 1)))];
        LaunchProfile forward = Assert.Single(probe.Profile(() => ZEngine.Ops.MergeAttention(parts)));
        // Every lane of a row reads each part's lse twice, and there are Parts·R of them.
        Assert.Equal((2L * Parts * R * P) + (2 * Lanes * 4 * Parts * R), forward.GlobalBytesRead);
        Assert.Equal((2L * R * P) + (4 * R), forward.GlobalBytesWritten);

        Tensor[] inputs = [.. parts.Select(part => part.Item1), .. parts.Select(part => part.Item2)], d = Array.ConvertAll(inputs, Tensor.EmptyLike);
        Tensor o = Random(probe.Device, 30, 1, R, 1, P).To(DType.BFloat16), lse = Random(probe.Device, 31, 1, R, 1);
        LaunchProfile backward = Assert.Single(probe.Profile(() => probe.Device.Backend.MergeAttentionBackward(inputs, new MergeSteps(P, 1), o, lse, o, null, d)));
        Assert.Equal((2L * (Parts + 2) * R * P) + (Lanes * 4 * R * (Parts + 1)), backward.GlobalBytesRead);
        Assert.Equal((2L * Parts * R * P) + (4 * Parts * R), backward.GlobalBytesWritten);
    }

    /// <summary>What was exchanged as one tensor, o and lse of a row side by side, is merged where it stands, by one launch, to the bits of dense parts.</summary>
    [Theory, MemberData(nameof(DeviceNames))]
    public void Parts_of_one_packed_tensor_are_merged_where_they_stand(string device)
    {
        const int Rows = 3, P = 21;
        Device on = Devices.Open(device);
        using TensorScope scope = TensorScope.Enter();
        Tensor packed = Random(on, 1, 4, 1, Rows, 2, P + 1), dO = Random(on, 2, 1, Rows, 2, P), dLse = Random(on, 3, 1, Rows, 2);
        float[][] Run(Func<Tensor, Tensor> place)
        {
            (Tensor O, Tensor Lse)[] parts = [.. Enumerable.Range(0, 4).Select(i => packed.Select(0, i)).Select(part => (place(part.Slice(-1, 0, P)), place(part.Select(-1, P))))];
            return Merged(parts, dO, dLse);
        }
        Assert.Equal(Run(x => x.Clone()), Run(x => x.Detach()));

        using var probe = new CountedDevice();
        using TensorScope own = TensorScope.Enter();
        Tensor near = packed.To(probe.Device);
        (Tensor, Tensor)[] views = [.. Enumerable.Range(0, 4).Select(i => (near.Select(0, i).Slice(-1, 0, P), near.Select(0, i).Select(-1, P)))];
        Assert.Single(probe.Profile(() => ZEngine.Ops.MergeAttention(views)));
    }

    /// <summary>o, lse and the gradients of every part.</summary>
    private static float[][] Merged((Tensor O, Tensor Lse)[] parts, Tensor dO, Tensor dLse)
    {
        using Tape tape = Tape.Begin();
        foreach ((Tensor part, Tensor partLse) in parts)
        {
            tape.Watch(part);
            tape.Watch(partLse);
        }
        (Tensor o, Tensor lse) = ZEngine.Ops.MergeAttention(parts);
        tape.Backward([o, lse], [dO, dLse]);
        var all = new List<Tensor> { o, lse };
        foreach ((Tensor part, Tensor partLse) in parts) all.AddRange(tape.GradientOf(part), tape.GradientOf(partLse));
        using NoGradient pause = Tape.NoGrad();
        return [.. all.Select(x => x.To(DType.Float32).ToArray<float>())];
    }

    /// <summary>Rows of the parts so far apart that they reach beyond 2³¹ elements; nobody touches what is between. The first and the last row are as near ones.</summary>
    [Theory, InlineData(DType.Float32), InlineData(DType.BFloat16)]
    public void Offsets_have_64_bits(DType dtype)
    {
        const long Far = (1L << 31) + 8, P = 24;
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor Spread(Tensor rows)
        {
            long inner = rows.Shape[1];
            Tensor memory = Tensor.Empty([2, Far], rows.DType, counted.Device);
            ZEngine.Ops.Copy(rows, memory.Slice(1, 0, inner));
            return memory.Slice(1, 0, inner);
        }
        Tensor[] o = [.. Enumerable.Range(0, 2).Select(i => counted.Normal((ulong)i + 1, 2, P).To(dtype))], lse = [.. Enumerable.Range(0, 2).Select(i => counted.Normal((ulong)i + 11, 2, 1))];
        Tensor dO = counted.Normal(21, 2, 1, 1, P).To(dtype), dLse = counted.Normal(22, 2, 1, 1);
        float[][] Run(Func<Tensor, Tensor> place)
        {
            return Merged([.. o.Zip(lse, (a, b) => (place(a).Reshape(2, 1, 1, P), place(b).Reshape(2, 1, 1)))], dO, dLse);
        }
        Assert.Equal(Run(x => x), Run(Spread));
    }

    [Fact]
    public void More_parts_than_one_merge_takes_are_an_error_on_a_gpu()
    {
        using TensorScope scope = TensorScope.Enter();
        Device device = Devices.Open("emulator");
        (Tensor, Tensor)[] parts = [.. Enumerable.Repeat((Tensor.Zeros([1, 1, 1, 4], DType.Float32, device), Tensor.Zeros([1, 1, 1], DType.Float32, device)), 65)];
        Assert.Equal("TreeAttention: 65 parts are to be merged at once, the kernel takes 64. Give a groupSize of at most 64.", Assert.Throws<NotSupportedException>(() => ZEngine.Ops.MergeAttention(parts)).Message);
    }

    [Fact]
    public void Rejects_what_shards_cannot_do()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor Zeros(params long[] shape) => Tensor.Zeros(shape, DType.Float32, Device.Cpu);
        string Message(Action call) => Assert.Throws<ArgumentException>(call).Message;
        Tensor q = Zeros(1, 4, 2, 8), k = Zeros(1, 5, 2, 8), two = Zeros(1, 2, 2, 8);
        Assert.Equal("TreeAttention: needs at least one shard.", Message(() => ZEngine.Ops.TreeAttention(q, [])));
        Assert.Equal("TreeAttention: a window or packed sequences cannot be given: shards know nothing of each other's keys.", Message(() => ZEngine.Ops.TreeAttention(q, [(k, k)], new AttentionOptions(Window: 3))));
        Assert.Equal("TreeAttention: the causal mask cuts through shard 0, which is not the last: its keys end at 5, but query 0 sees 4.", Message(() => ZEngine.Ops.TreeAttention(q, [(k, k), (two, two)])));
        Assert.Equal("TreeAttention: groupSize must be 0 or at least 2, got 1.", Message(() => ZEngine.Ops.TreeAttention(q, [(k, k)], groupSize: 1)));
        Assert.Equal("MergeAttention: lse of part 1 must be [B, L, H], got [1, 4, 3]: H is 2 but axis 2 is 3.", Message(() => ZEngine.Ops.MergeAttention((q, Zeros(1, 4, 2)), (q, Zeros(1, 4, 3)))));
        Assert.Equal("MergeAttention: needs at least one part.", Message(() => ZEngine.Ops.MergeAttention()));
    }
}
