using ZEngine.Emulator;
using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class AdamWTests
{
    internal static Tensors Apply(EngineInputs x)
    {
        double Number(string name) => x.Attrs.Number(name)!.Value;
        Tensor p = x["param"].Clone(), m = Tensor.Zeros(p.Shape, DType.Float32, x.Device), v = Tensor.Zeros(p.Shape, DType.Float32, x.Device);
        Tensor step = Tensor.Zeros([1], DType.Int64, x.Device);
        var options = new AdamWOptions(Number("beta1"), Number("beta2"), Number("eps"), Number("weight_decay"));
        for (int i = 0; i < x.Attrs.Int("steps"); i++)
            ZEngine.Ops.AdamW([new AdamWSlot(p, null, x["grads"].Select(0, i).Clone(), m, v, IsDecayed: true)], options, (float)Number("lr"), step);
        return new() { ["param"] = p, ["exp_avg"] = m, ["exp_avg_sq"] = v };
    }

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Case("adamw", "one step, odd count").With("steps", 1).With("lr", 0.01).With("beta1", 0.9).With("beta2", 0.95).With("eps", 1e-8).With("weight_decay", 0.1)
            .Normal("param", [37]).Normal("grads", [1, 37]).Build("none"),
        Case("adamw", "many steps").With("steps", 20).With("lr", 0.01).With("beta1", 0.9).With("beta2", 0.999).With("eps", 1e-6).With("weight_decay", 0.01)
            .Normal("param", [20]).Normal("grads", [20, 20]).Build("none"),
    ]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Steps_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    public static TheoryData<string> DeviceNames => [.. Devices.Names];

    [Theory, MemberData(nameof(DeviceNames))]
    public void Norm_that_is_not_finite_changes_nothing(string device)
    {
        foreach (float norm in (ReadOnlySpan<float>)[float.NaN, float.PositiveInfinity, 2e19f])
        {
            using TensorScope scope = TensorScope.Enter();
            Device on = Devices.Open(device);
            Tensor p = ZEngine.Ops.RandomNormal([9], Device.Cpu, new RandomStream(1)).To(on).Clone(), g = Tensor.From<float>([norm, 1, 1, 1, 1, 1, 1, 1, 1], [9], on);
            Tensor m = Tensor.Zeros([9], DType.Float32, on), v = Tensor.Zeros([9], DType.Float32, on), step = Tensor.Zeros([1], DType.Int64, on);
            float[] before = p.ToArray<float>();
            Tensor measured = ZEngine.Ops.Norm([g]);
            Assert.False(float.IsFinite(measured.Item()));
            ZEngine.Ops.AdamW([new AdamWSlot(p, null, g, m, v, true)], new AdamWOptions(), 0.1f, step, measured, 1);
            Assert.Equal(before, p.ToArray<float>());
            Assert.Equal(0, step.Item());
            Assert.All(m.ToArray<float>(), value => Assert.Equal(0, value));
        }
    }

    [Theory, MemberData(nameof(DeviceNames))]
    public void Clipping_equals_a_gradient_scaled_before(string device)
    {
        using TensorScope scope = TensorScope.Enter();
        Device on = Devices.Open(device);
        Tensor g = ZEngine.Ops.RandomNormal([1000], Device.Cpu, new RandomStream(1)).To(on), norm = ZEngine.Ops.Norm([g]);
        float[] Step(Tensor gradient, Tensor? measured, float limit)
        {
            Tensor p = Tensor.Zeros([1000], DType.Float32, on), m = Tensor.Zeros([1000], DType.Float32, on), v = Tensor.Zeros([1000], DType.Float32, on);
            ZEngine.Ops.AdamW([new AdamWSlot(p, null, gradient, m, v, true)], new AdamWOptions(), 0.1f, Tensor.Zeros([1], DType.Int64, on), measured, limit);
            return m.ToArray<float>();
        }
        Assert.Equal(Step(ZEngine.Ops.Scale(g, 0.5f / norm.Item()), null, 0), Step(g, norm, 0.5f));
        Assert.Equal(Step(g, null, 0), Step(g, norm, 1000));
    }

    [Theory, MemberData(nameof(DeviceNames))]
    public void Norm_equals_the_sum_in_double(string device)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor a = ZEngine.Ops.RandomNormal([100_001], Device.Cpu, new RandomStream(1)), b = ZEngine.Ops.RandomNormal([7, 3], Device.Cpu, new RandomStream(2), 0, 100);
        double want = Math.Sqrt(a.ToArray<float>().Concat(b.ToArray<float>()).Sum(value => (double)value * value));
        Tensor onDevice = a.To(Devices.Open(device)), odd = onDevice.Slice(0, 1, 99_999).Reshape(99_999);        // its address is no multiple of 16
        Assert.Equal(want, ZEngine.Ops.Norm([onDevice, Tensor.Zeros([0], DType.Float32, onDevice.Device), b.To(onDevice.Device)]).Item(), want * 1e-6);
        double wantOdd = Math.Sqrt(a.ToArray<float>().Skip(1).Take(99_999).Sum(value => (double)value * value));
        Assert.Equal(wantOdd, ZEngine.Ops.Norm([odd]).Item(), wantOdd * 1e-6);
        Assert.Equal(0, ZEngine.Ops.Norm([Tensor.Zeros([0], DType.Float32, onDevice.Device)]).Item());
    }

    /// <summary>Many parameters of every type in one call, over several steps, against plain loops in double.</summary>
    [Theory, MemberData(nameof(DeviceNames))]
    public void Many_parameters_step_as_each_alone(string device)
    {
        using TensorScope scope = TensorScope.Enter();
        Device on = Devices.Open(device);
        Tensor Random(long n, ulong stream) => ZEngine.Ops.RandomNormal([n], Device.Cpu, new RandomStream(5, stream)).To(on).Clone();
        long[] sizes = [3, 8192, 20_001, 0, 1, 64, 8193];
        DType[] types = [DType.Float32, DType.BFloat16, DType.Float16];
        var options = new AdamWOptions(0.9, 0.99, 1e-8, 0.1);
        AdamWSlot[] slots = [.. sizes.Select((n, i) =>
        {
            DType type = types[i % 3];
            Tensor p = Random(n, (ulong)i), value = type == DType.Float32 ? p : p.To(type).Clone();
            return new AdamWSlot(value, type == DType.Float32 ? null : p, Random(n, 100 + (ulong)i), Tensor.Zeros([n], DType.Float32, on), Tensor.Zeros([n], DType.Float32, on), i % 2 == 0);
        })];
        double[][] p = [.. slots.Select(slot => (slot.Master ?? slot.Value).ToArray<float>().Select(x => (double)x).ToArray())];
        double[][] m = [.. p.Select(x => new double[x.Length])], v = [.. p.Select(x => new double[x.Length])];
        Tensor step = Tensor.Zeros([1], DType.Int64, on), norm = ZEngine.Ops.Norm([.. slots.Select(slot => slot.Gradient)]);
        double scale = 1.0 / norm.Item();
        for (int t = 1; t <= 3; t++)
        {
            ZEngine.Ops.AdamW(slots, options, 0.01f, step, norm, 1);
            for (int i = 0; i < slots.Length; i++)
            {
                float[] g = slots[i].Gradient.ToArray<float>();
                for (int k = 0; k < g.Length; k++)
                {
                    m[i][k] = 0.9 * m[i][k] + 0.1 * g[k] * scale;
                    v[i][k] = 0.99 * v[i][k] + 0.01 * g[k] * scale * g[k] * scale;
                    if (slots[i].IsDecayed) p[i][k] -= 0.01 * 0.1 * p[i][k];
                    p[i][k] -= 0.01 * (m[i][k] / (1 - Math.Pow(0.9, t))) / (Math.Sqrt(v[i][k] / (1 - Math.Pow(0.99, t))) + 1e-8);
                }
            }
            Assert.Equal(t, step.Item());
        }
        for (int i = 0; i < slots.Length; i++)
        {
            float[] got = (slots[i].Master ?? slots[i].Value).ToArray<float>();
            for (int k = 0; k < got.Length; k++) Assert.Equal(p[i][k], got[k], 2e-6);
            if (slots[i].Master is { } master) Assert.Equal(master.To(slots[i].Value.DType).To(DType.Float32).ToArray<float>(), slots[i].Value.To(DType.Float32).ToArray<float>());
        }
    }

    /// <summary>A captured step counts on at each replay, and replays are the same steps as those without a graph.</summary>
    [Fact]
    public void A_captured_step_is_the_same_step()
    {
        using var probe = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        float[] Steps(bool isCaptured)
        {
            Tensor Random(ulong stream) => ZEngine.Ops.RandomNormal([10_000], probe.Device, new RandomStream(8, stream));
            Tensor p = Random(1), g = Random(2), m = Tensor.Zeros([10_000], DType.Float32, probe.Device), v = Tensor.Zeros([10_000], DType.Float32, probe.Device), step = Tensor.Zeros([1], DType.Int64, probe.Device);
            void Step() => ZEngine.Ops.AdamW([new AdamWSlot(p, null, g, m, v, true)], new AdamWOptions(), 0.1f, step, ZEngine.Ops.Norm([g]), 1);
            Step();
            if (isCaptured)
            {
                using ZEngine.Cuda.CudaGraph graph = probe.Device.Capture(Step);
                graph.Launch();
                graph.Launch();
                probe.Device.Synchronize();
            }
            else
            {
                Step();
                Step();
            }
            Assert.Equal(3, step.Item());
            return p.ToArray<float>();
        }
        Assert.Equal(Steps(isCaptured: false), Steps(isCaptured: true));
    }

    [Theory]
    [InlineData(DType.Float32, 28), InlineData(DType.BFloat16, 30)]
    public void Traffic_is_one_read_and_one_write_in_one_launch(DType type, int bytes)
    {
        using var probe = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const int N = 2 * 8192, Parts = 3, PartBytes = 72;
        Tensor Zeros() => Tensor.Zeros([N], DType.Float32, probe.Device);
        AdamWSlot[] slots = [.. Enumerable.Range(0, Parts).Select(_ => new AdamWSlot(Tensor.Zeros([N], type, probe.Device), type == DType.Float32 ? null : Zeros(), Zeros(), Zeros(), Zeros(), true))];
        Tensor step = Tensor.Zeros([1], DType.Int64, probe.Device), norm = Tensor.Zeros([], DType.Float32, probe.Device);
        LaunchProfile launch = Assert.Single(probe.Profile(() => ZEngine.Ops.AdamW(slots, new AdamWOptions(), 0.1f, step, norm, 1)));
        Assert.Equal(1, step.Item());
        // Besides the parameters: the norm for every thread, and for one thread of each block the counter, its part, and two looks for it at most.
        Assert.InRange(launch.GlobalBytesRead - launch[InstructionClass.Atomic].Bytes - (16L * N * Parts), 0, 2 * Parts * ((4 * 256) + 8 + PartBytes + (2 * 8)));
        Assert.Equal((bytes - 16L) * N * Parts + 8, launch.GlobalBytesWritten);
        // Full sectors: stores of 16 bytes a thread, and of 8 for a value of 16 bits; the counter's is one more.
        InstructionCounter stores = launch[InstructionClass.GlobalStore];
        Assert.Equal(((bytes - 16L) * N * Parts / 32) + 1, stores.Sectors);
        Assert.Equal(((long)N * Parts / 128 * (type == DType.Float32 ? 3 : 4)) + 1, stores.Requests);

        LaunchProfile[] stages = probe.Profile(() => ZEngine.Ops.Norm([.. slots.Select(slot => slot.Gradient)]));
        Assert.Equal(["norm_squares", "norm_total"], stages.Select(stage => stage.Kernel.Contains("squares", StringComparison.Ordinal) ? "norm_squares" : "norm_total"));
        Assert.Equal(8L * 2 * Parts, stages[0].GlobalBytesWritten);
        Assert.Equal((8L * 2 * Parts, 4L), (stages[1].GlobalBytesRead, stages[1].GlobalBytesWritten));
    }
}
