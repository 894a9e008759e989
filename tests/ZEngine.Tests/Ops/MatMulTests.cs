using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class MatMulTests
{
    internal static Tensors Apply(EngineInputs x) => new()
    {
        ["y"] = ZEngine.Ops.MatMul(x["a"], x["b"], x.Attrs.Flag("transpose_a"), x.Attrs.Flag("transpose_b"), x.Optional("bias"), x.Attrs.Text("activation") is { } name ? ElementwiseTests.Named(name) : null),
    };

    private static readonly string[] Activations = ["sigmoid", "silu", "gelu", "gelu_tanh", "relu", "relu2"];

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Case("matmul", "one element").Normal("a", [1, 1]).Normal("b", [1, 1]).Build(),
        Case("matmul", "edges of the register tile").Normal("a", [13, 17]).Normal("b", [17, 35]).Normal("bias", [35]).Build(),
        Case("matmul", "more rows than a decode, k beyond a block").With("transpose_b", true).Normal("a", [19, 300]).Normal("b", [40, 300]).Build(),
        Case("matmul", "decode: one row").With("transpose_b", true).Normal("a", [1, 70]).Normal("b", [37, 70]).Normal("bias", [37]).Build(),
        Case("matmul", "decode: a few rows").With("transpose_b", true).Normal("a", [3, 33]).Normal("b", [6, 33]).Build(),
        Case("matmul", "both transposed").With("transpose_a", true).With("transpose_b", true).Normal("a", [9, 20]).Normal("b", [21, 9]).Build(),
        Case("matmul", "batched, a transposed").With("transpose_a", true).Normal("a", [3, 9, 5]).Normal("b", [3, 9, 7]).Build(),
        Case("matmul", "batched, b transposed").With("transpose_b", true).Normal("a", [2, 18, 9]).Normal("b", [2, 7, 9]).Build(),
        .. Activations.Select(f => Case("matmul", $"bias, {f}").With("transpose_b", true).With("activation", f).Normal("a", [19, 24]).Normal("b", [40, 24]).Normal("bias", [40]).Build()),
        .. Activations.Select(f => Case("matmul", $"decode, bias, {f}").With("transpose_b", true).With("activation", f).Normal("a", [3, 24]).Normal("b", [37, 24]).Normal("bias", [37]).Build()),
        Case("matmul", "gelu of narrow rows").With("activation", "gelu_tanh").Normal("a", [13, 17]).Normal("b", [17, 35]).Normal("bias", [35]).Build(),
        Case("matmul", "silu of a batch, no bias").With("transpose_a", true).With("activation", "silu").Normal("a", [3, 9, 5]).Normal("b", [3, 9, 7]).Build(),
        Case("matmul", "gelu, two parts of a tile and three tiles").With("activation", "gelu_tanh").Normal("a", [130, 24]).Normal("b", [24, 136]).Normal("bias", [136]).Build(),
    ]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    [Fact]
    public void Stack_of_rows_equals_one_tall_product()
    {
        using TensorScope scope = TensorScope.Enter();
        var random = new RandomStream(1);
        Tensor x = ZEngine.Ops.RandomNormal([2, 5, 24], Device.Cpu, random), w = ZEngine.Ops.RandomNormal([40, 24], Device.Cpu, random);
        Assert.Equal(ZEngine.Ops.Linear(x.Reshape(10, 24), w).ToArray<float>(), ZEngine.Ops.Linear(x, w).ToArray<float>());
    }

    /// <summary>The gradient of a 16-bit parameter is rounded nowhere: it is that of the same numbers in Float32.</summary>
    [Theory]
    [InlineData(true, 70, 136), InlineData(false, 40, 24), InlineData(true, 3, 9)]
    public void Gradient_of_a_16_bit_parameter_is_Float32(bool isTransposed, long rows, long columns)
    {
        using var counted = new CountedDevice();
        const long inner = 72;
        using Tape tape = Tape.Begin();
        Tensor x = counted.Normal(1, rows, inner).To(DType.BFloat16), dy = counted.Normal(2, rows, columns).To(DType.BFloat16);
        using var weight = new Parameter(isTransposed ? [columns, inner] : [inner, columns], Initializer.Zeros, isMatrix: true);
        weight.Materialize(counted.Normal(3, weight.Shape).To(DType.BFloat16));
        Tensor y = ZEngine.Ops.MatMul(x, weight.Value, transposeB: isTransposed);
        counted.Launches();
        tape.Backward(y, dy);
        // Rows of 9 elements begin where the tensor cores cannot read them: they are copied.
        if (columns % 8 == 0) Assert.All(counted.Launches(), launch => Assert.Contains("matmul", launch.Kernel, StringComparison.Ordinal));
        float[] got = weight.Gradient!.ToArray<float>(), a = x.To(DType.Float32).ToArray<float>(), d = dy.To(DType.Float32).ToArray<float>();
        for (int i = 0; i < inner; i++)
        for (int n = 0; n < columns; n++)
        {
            double want = 0;
            for (int m = 0; m < rows; m++) want += (double)a[m * inner + i] * d[m * columns + n];
            Assert.Equal(want, got[isTransposed ? n * inner + i : i * columns + n], 1e-4);
        }
    }

    [Theory]
    [InlineData(1), InlineData(8), InlineData(40)]
    public void Part_of_a_wider_matrix_equals_its_copy(int rows)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor wide = ZEngine.Ops.RandomNormal([rows, 100], Device.Cpu, new RandomStream(2)), w = ZEngine.Ops.RandomNormal([50, 30], Device.Cpu, new RandomStream(3));
        Tensor part = wide.Slice(1, 7, 30);
        Assert.Equal(ZEngine.Ops.Linear(part.Clone(), w).ToArray<float>(), ZEngine.Ops.Linear(part, w).ToArray<float>());
    }

    [Theory]
    [InlineData(1), InlineData(5), InlineData(64)]
    public void Sixteen_bit_weights_equal_their_widened_copy(int rows)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = ZEngine.Ops.RandomNormal([rows, 70], Device.Cpu, new RandomStream(4)), w = ZEngine.Ops.RandomNormal([33, 70], Device.Cpu, new RandomStream(5));
        foreach (DType dtype in (ReadOnlySpan<DType>)[DType.BFloat16, DType.Float16])
        {
            Tensor narrow = w.To(dtype);
            float[] got = ZEngine.Ops.Linear(x, narrow).ToArray<float>(), want = ZEngine.Ops.Linear(x, narrow.To(DType.Float32)).ToArray<float>();
            for (int i = 0; i < got.Length; i++) Assert.Equal(want[i], got[i], 1e-4f);
        }
    }

    /// <summary>Each operand once for every tile that it meets, y once, in whole sectors and in accesses of 16 bytes; fragments without bank conflicts.</summary>
    [Theory]
    [InlineData(false, false), InlineData(false, true), InlineData(true, false), InlineData(true, true)]
    public void Traffic_of_tiles_equals_the_header(bool transposeA, bool transposeB)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long M = 128, N = 192, K = 64;
        Tensor a = (transposeA ? counted.Normal(1, K, M) : counted.Normal(1, M, K)).To(DType.BFloat16), b = (transposeB ? counted.Normal(2, N, K) : counted.Normal(2, K, N)).To(DType.BFloat16);
        LaunchProfile[] launches = counted.Profile(() => ZEngine.Ops.MatMul(a, b, transposeA: transposeA, transposeB: transposeB));
        CountedDevice.Are(["matmul_half"], launches);
        long tile = launches[0].Kernel.Contains("Li128E", StringComparison.Ordinal) ? 128 : 64;
        CountedDevice.Moved(2 * ((N + tile - 1) / tile * M * K + (M + tile - 1) / tile * K * N), 2 * M * N, launches[0]);
        CountedDevice.FillsSectors(launches[0]);
        InstructionCounter store = launches[0][InstructionClass.GlobalStore], fragment = launches[0][InstructionClass.MatrixLoad];
        Assert.Equal((16 * store.Threads, 4 * fragment.Executions), (store.Bytes, fragment.Wavefronts));
        CountedDevice.HasNoBankConflicts(launches[0]);
        Assert.Equal(2 * M * N * K, launches[0].MatrixFlops);
    }

    /// <summary>The same of Float32 operands, exact and rounded to TF32: with few products, which take tiles of 64, and with as many as there are multiprocessors.</summary>
    [Theory]
    [InlineData(false, false, false), InlineData(false, true, false), InlineData(true, false, false), InlineData(true, true, false), InlineData(false, true, true), InlineData(true, false, true)]
    public void Traffic_of_float_tiles_equals_the_header(bool transposeA, bool transposeB, bool allowsTf32)
    {
        using var counted = new CountedDevice(options: new CudaOptions { AllowsTf32 = allowsTf32 });
        using TensorScope scope = TensorScope.Enter();
        foreach ((long products, long tile) in (ReadOnlySpan<(long, long)>)[(1, 64), (counted.Device.Multiprocessors, 128)])
        {
            const long M = 128, N = 128, K = 16;
            Tensor a = transposeA ? counted.Normal(1, products, K, M) : counted.Normal(1, products, M, K), b = transposeB ? counted.Normal(2, products, N, K) : counted.Normal(2, products, K, N);
            LaunchProfile[] launches = counted.Profile(() => ZEngine.Ops.MatMul(a, b, transposeA, transposeB));
            CountedDevice.Are([$"Li{tile}ELb{(allowsTf32 ? 1 : 0)}E"], launches);
            CountedDevice.Moved(4 * products * (N / tile * M * K + M / tile * K * N), 4 * products * M * N, launches[0]);
            CountedDevice.IsWide(launches[0]);
            CountedDevice.FillsSectors(launches[0]);
            CountedDevice.HasNoBankConflicts(launches[0]);
            Assert.Equal(allowsTf32 ? 2 * products * M * N * K : 0, launches[0].MatrixFlops);
        }
    }

    /// <summary>A product with bias and activation is one launch that writes y once more for the gradient; of Relu y is enough. The gradient is one launch more than without.</summary>
    [Theory]
    [InlineData(Pointwise.GeluTanh, 2), InlineData(Pointwise.Relu, 1)]
    public void Activation_is_part_of_the_launch(Pointwise function, int tensors)
    {
        using var counted = new CountedDevice();
        const long M = 64, N = 128, K = 32;
        using Tape tape = Tape.Begin();
        Tensor x = counted.Normal(1, M, K).To(DType.BFloat16), w = counted.Normal(2, N, K).To(DType.BFloat16), bias = counted.Normal(3, N), dy = counted.Normal(4, M, N).To(DType.BFloat16);
        LaunchProfile[] alone = counted.Profile(() => ZEngine.Ops.Linear(x, w, bias, function));
        foreach (Tensor input in (Tensor[])[x, w, bias]) tape.Watch(input);
        counted.Launches();
        Tensor y = ZEngine.Ops.Linear(x, w, bias, function);
        LaunchProfile[] forward = counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] backward = counted.Launches();
        CountedDevice.Are(["matmul_half"], alone);
        CountedDevice.Are(["matmul_half"], forward);
        CountedDevice.Are(["pointwise_backward", "matmul_half", "matmul_half", "reduce_columns"], backward);
        Assert.Equal((2 * M * N, 2 * tensors * M * N), (alone[0].GlobalBytesWritten, forward[0].GlobalBytesWritten));
        Assert.Equal(2 * (N / 64 * M * K + M / 64 * N * K) + 4 * M / 4 * N, forward[0].GlobalBytesRead);   // and the bias for every four rows, from the cache
        CountedDevice.IsWide(forward[0]);
        CountedDevice.HasNoBankConflicts(forward[0]);
    }

    /// <summary>As many products as there are multiprocessors take the large tile: results, and what is kept, are those of the CPU, at the edges too.</summary>
    [Theory]
    [InlineData(DType.Float32, false, 72), InlineData(DType.Float32, false, 67), InlineData(DType.Float32, true, 72), InlineData(DType.BFloat16, false, 72), InlineData(DType.BFloat16, false, 67), InlineData(DType.Float16, false, 72)]
    public void Large_tiles_with_an_activation_are_those_of_the_CPU(DType type, bool allowsTf32, long columns)
    {
        using var counted = new CountedDevice(options: new CudaOptions { AllowsTf32 = allowsTf32 });
        using TensorScope scope = TensorScope.Enter();
        long products = counted.Device.Multiprocessors;
        Tensor a = counted.Normal(1, products, 70, 8).To(type), b = counted.Normal(2, products, 8, columns).To(type), bias = counted.Normal(3, columns);
        Tensor y = Tensor.Empty([products, 70, columns], type, counted.Device), kept = Tensor.EmptyLike(y);
        LaunchProfile[] launches = counted.Profile(() => counted.Device.Backend.MatMul(new MatMulInputs(a, b.WithEvenRows(), false, false, bias) { Activation = Pointwise.Gelu, Kept = kept }, y, isAdding: false));
        Assert.Contains("Li128E", launches[^1].Kernel, StringComparison.Ordinal);
        Tensor Wide(Tensor tensor) => tensor.To(Device.Cpu).To(DType.Float32);
        Tensor sum = ZEngine.Ops.MatMul(Wide(a), Wide(b), bias: Wide(bias));
        double unit = allowsTf32 ? 1.0 / 256 : type switch { DType.Float32 => 4e-6, DType.Float16 => 1.0 / 2048, _ => 1.0 / 256 };
        foreach ((Tensor want, Tensor got) in (ReadOnlySpan<(Tensor, Tensor)>)[(sum, kept), (ZEngine.Ops.Map(Pointwise.Gelu, sum), y)])
        {
            (float[] left, float[] right) = (want.ToArray<float>(), Wide(got).ToArray<float>());
            for (int i = 0; i < left.Length; i++)
                if (!(Math.Abs(left[i] - right[i]) <= unit * Math.Max(1, Math.Abs(left[i])) * (allowsTf32 ? 4 : 1.02))) Assert.Fail($"at {i}: got {right[i]:R}, want {left[i]:R}");
        }
    }

    [Fact]
    public void Sixteen_bits_with_an_activation_round_once()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        foreach (DType type in (ReadOnlySpan<DType>)[DType.BFloat16, DType.Float16])
        {
            Tensor x = counted.Normal(1, 20, 16).To(type), w = counted.Normal(2, 24, 16).To(type), bias = counted.Normal(3, 24);
            float[] got = ZEngine.Ops.Linear(x, w, bias, Pointwise.Silu).To(DType.Float32).ToArray<float>();
            float[] want = ZEngine.Ops.Linear(x.To(DType.Float32), w.To(DType.Float32), bias, Pointwise.Silu).To(type).To(DType.Float32).ToArray<float>();
            // The order of the sums differs: a result that lies between two numbers may go to either.
            Assert.InRange(got.Zip(want).Count(pair => pair.First != pair.Second), 0, got.Length / 100);
        }
    }

    /// <summary>A few rows read the weights once.</summary>
    [Fact]
    public void Traffic_of_rows_equals_the_header()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long N = 64, K = 512;
        Tensor a = counted.Normal(1, 1, K).To(DType.BFloat16), b = counted.Normal(2, N, K).To(DType.BFloat16);
        LaunchProfile[] launches = counted.Profile(() => ZEngine.Ops.MatMul(a, b, transposeB: true));
        CountedDevice.Are(["matmul_rows"], launches);
        CountedDevice.Moved(2 * (N * K + N / 4 * K), 2 * N, launches[0]);      // and the row for every 4 columns, from the cache
        InstructionCounter load = launches[0][InstructionClass.GlobalLoad];
        Assert.Equal((16 * load.Threads, load.Bytes), (load.Bytes, 32 * load.Sectors));
    }

    [Fact]
    public void Rejects_a_function_that_is_no_activation()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([2, 3], DType.Float32, Device.Cpu), w = Tensor.Zeros([3, 3], DType.Float32, Device.Cpu);
        Assert.Equal("MatMul: Exp is not the activation of a product; Silu, Gelu, GeluTanh, Relu, Relu2 and Sigmoid are.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.MatMul(x, w, activation: Pointwise.Exp)).Message);
        Assert.StartsWith("Linear: Exp is not the activation", Assert.Throws<ArgumentException>(() => ZEngine.Ops.Linear(x, w, activation: Pointwise.Exp)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Rejects_inner_sizes_that_differ()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor a = Tensor.Zeros([2, 3], DType.Float32, Device.Cpu), b = Tensor.Zeros([4, 5], DType.Float32, Device.Cpu);
        Assert.Equal("MatMul: inner sizes differ: a [2, 3] has 3, b [4, 5] has 4.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.MatMul(a, b)).Message);
        Assert.Equal("MatMul: bias must be [4], got [3].", Assert.Throws<ArgumentException>(() => ZEngine.Ops.MatMul(a, b.Reshape(5, 4).Slice(0, 0, 3), bias: Tensor.Zeros([3], DType.Float32, Device.Cpu))).Message);
    }
}
