using System.Diagnostics;
using ZEngine.Cuda;
using ZEngine.Interop;

namespace ZEngine.Tests.Interop;

/// <summary>The binding to cuBLASLt: against the library itself in all that needs no GPU, and against a stub that multiplies in host memory.</summary>
public sealed unsafe class CublasLtTests
{
    private const int CreationFails = 1, HasNoAlgorithm = 2, LaunchFails = 3;
    private static readonly NativeStub Stub = new("libcublaslt_stub.c"), Driver = new("libcuda_stub.c");
    private static readonly Lazy<(CublasLt? Library, string Reason)> Real = new(LoadReal);

    private static (CublasLt?, string) LoadReal()
    {
        try
        {
            return (CublasLt.Load(), "");
        }
        catch (NativeLibraryException missing)
        {
            if (!OperatingSystem.IsLinux()) return (null, missing.Message);
            string script = Path.Combine(SourceTree.Root, "tests", "fetch-cuda.sh"), folder = Path.Combine(NativeLibraries.CacheFolder, "cublaslt");
            using Process process = Process.Start(new ProcessStartInfo("bash", [script, "cublaslt", folder]) { RedirectStandardError = true, RedirectStandardOutput = true })!;
            string error = process.StandardError.ReadToEnd();
            process.WaitForExit();
            return process.ExitCode == 0 ? (CublasLt.Load(), "") : (null, $"there is no cuBLASLt, and it could not be fetched: {error}");
        }
    }

    private static CublasLt Library()
    {
        Assert.SkipWhen(Real.Value.Library is null, Real.Value.Reason);
        return Real.Value.Library!;
    }

    private static void Set(long version = 120405, int refusing = 0) => ((delegate* unmanaged<long, int, void>)Stub.Symbol("stub_set"))(version, refusing);

    private static long Seen(int i) => ((delegate* unmanaged<int, long>)Stub.Symbol("stub_seen"))(i);

    private static int Live => ((delegate* unmanaged<int>)Stub.Symbol("stub_live"))();

    /// <summary>A CUDA device whose driver keeps memory on the host and whose products are the stub's; it has no kernels at all.</summary>
    private static void With(Action<CudaDevice> test, int refusing = 0, CudaOptions? options = null)
    {
        Set(refusing: refusing);
        CublasLt library = CublasLt.Load([Stub.Path]);
        using (var driver = new LibCudaDriver(Driver.Path))
        using (CudaDevice device = CudaDevice.Open(0, driver, (options ?? new CudaOptions { UsesCublasLt = true }) with
        {
            CublasLt = () => library, Compiler = () => throw new NativeLibraryException("It is hidden."), Pack = () => new Dictionary<(int, string), ModuleImage>(),
        }))
        {
            using TensorScope scope = TensorScope.Enter();
            test(device);
        }
        Assert.Equal(0, Live);
    }

    private static Tensor Normal(int seed, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream((ulong)seed));

    [Fact]
    public void Descriptions_arrive_in_the_library_itself()
    {
        CublasLt library = Library();
        Assert.InRange(library.Version.Major, 12, 13);
        var product = new CublasLtProduct(
            new CublasLtLayout(CublasLtType.BFloat16, 5_000_000_000, 7, 5_000_000_008, 3, 1L << 40), new CublasLtLayout(CublasLtType.Float16, 7, 9, 16), new CublasLtLayout(CublasLtType.Float32, 5_000_000_000, 9, 5_000_000_008, 3, 1L << 41),
            TransposeA: true, TransposeB: false, CublasLtCompute.Tf32, CublasLtEpilogue.Gelu | CublasLtEpilogue.Bias | CublasLtEpilogue.Kept, 64, 32, 16);
        nint made = library.NewProduct(product);
        // cublasLtMatmulDescAttributes_t: compute type, scale type, pointer mode (host), both transpositions, epilogue, bias, the kept matrix.
        Assert.Equal([77, 0, 0, 1, 0, 4 | 32 | 128], ((int[])[0, 1, 2, 3, 4, 7]).Select(attribute => library.ReadProduct<int>(made, attribute)));
        library.SetBias(made, unchecked((nint)0x7000_0000_1230));
        Assert.Equal(0x7000_0000_1230, library.ReadProduct<long>(made, 8));
        Assert.Equal([16, 5_000_000_008, 1L << 41], ((int[])[11, 12, 13]).Select(attribute => library.ReadProduct<long>(made, attribute)));
        library.SetKept(made, unchecked((nint)0x7000_0000_4560));
        Assert.Equal(0x7000_0000_4560, library.ReadProduct<long>(made, 11));
        library.FreeProduct(made);
        nint plain = library.NewProduct(product with { Epilogue = CublasLtEpilogue.None });
        Assert.Equal([1, 0], (int[])[library.ReadProduct<int>(plain, 7), (int)library.ReadProduct<long>(plain, 12)]);
        library.FreeProduct(plain);

        nint layout = library.NewLayout(product.A);
        Assert.Equal((14, 3), (library.ReadLayout<int>(layout, 0), library.ReadLayout<int>(layout, 5)));
        Assert.Equal([5_000_000_000, 7, 5_000_000_008, 1L << 40], ((int[])[2, 3, 4, 6]).Select(attribute => library.ReadLayout<long>(layout, attribute)));
        library.FreeLayout(layout);

        nint preference = library.NewPreference(product);
        Assert.Equal(32 << 20, library.ReadPreference<long>(preference, 1));
        Assert.Equal([2, 64, 32, 16, 16], ((int[])[3, 5, 6, 7, 8]).Select(attribute => library.ReadPreference<int>(preference, attribute)));
        library.FreePreference(preference);
    }

    [Fact]
    public void Library_itself_says_what_it_lacks()
    {
        CublasLt library = Library();
        Assert.SkipWhen(CudaDevice.IsAvailable, "this machine has a GPU: a handle can be made");
        string message = Assert.Throws<CublasLtException>(() => library.CreateHandle()).Message;
        Assert.StartsWith("cublasLtCreate: CUBLAS_STATUS_NOT_INITIALIZED (1): the library was not initialized.", message, StringComparison.Ordinal);
        Assert.Contains("ZENGINE_CUBLASLT=off leaves it away", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Library_that_is_missing_or_too_old_is_refused_with_the_words_of_the_loader()
    {
        string file = Path.GetTempFileName();
        string missing = Assert.Throws<NativeLibraryException>(() => CublasLt.Load(["libnothing-of-this-name.so", file])).Message;
        Assert.Contains("libnothing-of-this-name.so: cannot open shared object file", missing, StringComparison.Ordinal);
        Assert.Contains($"{file}: file too short", missing, StringComparison.Ordinal);
        File.Delete(file);
        Set(version: 11_0900);
        Assert.Contains("cuBLASLt 110900 is too old", Assert.Throws<NativeLibraryException>(() => CublasLt.Load([Stub.Path])).Message, StringComparison.Ordinal);
    }

    public static TheoryData<DType, bool, bool, bool> Kinds =>
        [.. from type in (DType[])[DType.Float32, DType.BFloat16, DType.Float16] from a in (bool[])[false, true] from b in (bool[])[false, true] from isAdding in (bool[])[false, true] select new TheoryDataRow<DType, bool, bool, bool>(type, a, b, isAdding)];

    /// <summary>What the engine asks of the library is the product that the CPU computes, for every way of storing the operands; also stacks and rows apart.</summary>
    [Theory, MemberData(nameof(Kinds))]
    public void Products_are_those_of_the_CPU(DType type, bool transposeA, bool transposeB, bool isAdding) => With(device =>
    {
        const int rows = 16, columns = 24, inner = 40;
        foreach (int count in (int[])[1, 3])
        {
            // Rows lie 8 elements further apart than they are long.
            (long, long) aShape = transposeA ? (inner, rows) : (rows, inner), bShape = transposeB ? (columns, inner) : (inner, columns);
            Tensor Part(int seed, (long Rows, long Columns) shape) => (count == 1 ? Normal(seed, shape.Rows, shape.Columns + 8) : Normal(seed, count, shape.Rows, shape.Columns + 8)).To(type);
            Tensor aWide = Part(1, aShape), bWide = Part(2, bShape), before = (count == 1 ? Normal(3, rows, columns) : Normal(3, count, rows, columns)).To(type);
            Tensor a = aWide.Slice(-1, 0, aShape.Item2), b = bWide.Slice(-1, 0, bShape.Item2);
            Tensor bias = Normal(4, columns), onDevice = before.To(device);
            bool hasBias = type == DType.Float32;
            device.Backend.MatMul(new MatMulInputs(aWide.To(device).Slice(-1, 0, aShape.Item2), bWide.To(device).Slice(-1, 0, bShape.Item2), transposeA, transposeB, hasBias ? bias.To(device) : null), onDevice, isAdding);
            Tensor product = ZEngine.Ops.MatMul(a.To(DType.Float32).Clone(), b.To(DType.Float32).Clone(), transposeA, transposeB, hasBias ? bias : null);
            float[] want = (isAdding ? ZEngine.Ops.Add(product, before.To(DType.Float32)) : product).ToArray<float>(), got = onDevice.To(Device.Cpu).To(DType.Float32).ToArray<float>();
            double unit = type switch { DType.Float32 => 1e-5, DType.Float16 => 1.0 / 1024, _ => 1.0 / 128 };
            for (int i = 0; i < want.Length; i++) Assert.Equal(want[i], got[i], unit * Math.Max(4, Math.Abs(want[i])));
        }
        Assert.Equal(2, Seen(0));
        // The limit of the workspace, sums put together there, Float32 sums, the bias, the device's stream.
        Assert.Equal([32 << 20, 2, 68, type == DType.Float32 ? 4 : 1, device.Stream.Value], ((int[])[2, 3, 7, 8, 9]).Select(Seen));
    });

    /// <summary>What the library computes of an activation is what the CPU does: the result, and what is kept for the gradient, plain and in stacks; each in one call.</summary>
    [Theory]
    [InlineData(DType.Float32, Pointwise.Relu, true), InlineData(DType.Float32, Pointwise.Relu, false), InlineData(DType.BFloat16, Pointwise.Relu, false), InlineData(DType.Float16, Pointwise.Relu, false)]
    [InlineData(DType.Float32, Pointwise.GeluTanh, true), InlineData(DType.Float32, Pointwise.GeluTanh, false), InlineData(DType.BFloat16, Pointwise.GeluTanh, false), InlineData(DType.Float16, Pointwise.GeluTanh, false)]
    public void Activations_are_those_of_the_CPU(DType type, Pointwise function, bool hasBias) => With(device =>
    {
        int calls = 0;
        foreach (bool isKept in function == Pointwise.Relu ? (bool[])[false] : [false, true])
        foreach (long[] stack in (long[][])[[], [3]])
        {
            Tensor a = Normal(1, [.. stack, 20, 40]).To(type), b = Normal(2, [.. stack, 24, 40]).To(type), bias = Normal(3, 24);
            Tensor Empty() => Tensor.Empty([.. stack, 20, 24], type, device);
            Tensor y = Empty();
            Tensor? kept = isKept ? Empty() : null;
            device.Backend.MatMul(new MatMulInputs(a.To(device), b.To(device), false, true, hasBias ? bias.To(device) : null) { Activation = function, Kept = kept }, y, isAdding: false);
            Tensor sum = ZEngine.Ops.MatMul(a.To(DType.Float32), b.To(DType.Float32), transposeB: true, bias: hasBias ? bias : null);
            Near(ZEngine.Ops.Map(function, sum), y);
            if (kept is not null) Near(sum, kept);
            Assert.Equal((++calls, (function == Pointwise.Relu ? 2 : 32) | (hasBias ? 4 : 0) | (isKept ? 128 : 0)), (Seen(0), Seen(8)));
        }

        void Near(Tensor want, Tensor got)
        {
            (float[] left, float[] right) = (want.ToArray<float>(), got.To(Device.Cpu).To(DType.Float32).ToArray<float>());
            double unit = type switch { DType.Float32 => 1e-5, DType.Float16 => 1.0 / 1024, _ => 1.0 / 128 };
            for (int i = 0; i < left.Length; i++) Assert.Equal(left[i], right[i], unit * Math.Max(4, Math.Abs(left[i])));
        }
    }, options: new CudaOptions { UsesCublasLt = true, AllowsTf32 = true });

    /// <summary>The gradient of a 16-bit parameter: 16-bit operands, a Float32 result.</summary>
    [Fact]
    public void Float_results_of_16_bit_operands_are_those_of_the_CPU() => With(device =>
    {
        Tensor a = Normal(1, 40, 16).To(DType.BFloat16), b = Normal(2, 40, 24).To(DType.BFloat16), y = Tensor.Empty([16, 24], DType.Float32, device);
        device.Backend.MatMul(new MatMulInputs(a.To(device), b.To(device), true, false, null), y, isAdding: false);
        float[] want = ZEngine.Ops.MatMul(a.To(DType.Float32), b.To(DType.Float32), transposeA: true).ToArray<float>(), got = y.ToArray<float>();
        for (int i = 0; i < want.Length; i++) Assert.Equal(want[i], got[i], 1e-4);
        Assert.Equal(1, Seen(0));
    });

    [Fact]
    public void One_product_is_looked_up_once_and_addresses_count() => With(device =>
    {
        Tensor a = Normal(1, 33, 36).To(device), b = Normal(2, 36, 20).To(device), y = Normal(3, 33, 20).To(device);
        for (int i = 0; i < 3; i++) device.Backend.MatMul(new MatMulInputs(a, b, false, false, null), y, false);
        Assert.Equal((3, 1), (Seen(0), Seen(1)));
        device.Backend.MatMul(new MatMulInputs(a.Slice(0, 1, 32), b, false, false, null), y.Slice(0, 0, 32), false);
        // Of the library's A (ours is its B) the address is a multiple of 256, of its B one of 144 = 16 · 9.
        Assert.Equal([4, 2, 256, 16, 256], ((int[])[0, 1, 4, 5, 6]).Select(Seen));
        using CudaDevice rounding = CudaDevice.Open(0, new LibCudaDriver(Driver.Path), device.Options with { AllowsTf32 = true });
        rounding.Backend.MatMul(new MatMulInputs(Normal(1, 33, 36).To(rounding), Normal(2, 36, 20).To(rounding), false, false, null), Normal(3, 33, 20).To(rounding), false);
        Assert.Equal(77, Seen(7));
    });

    /// <summary>The engine's own kernels are asked for, which this device has not: the message names them.</summary>
    [Fact]
    public void What_the_library_does_not_take_goes_to_own_kernels()
    {
        static void IsOwn(CudaDevice device, string kernel, Action action)
        {
            Assert.Contains($"no packed PTX for {kernel}", Assert.Throws<NativeLibraryException>(action).Message, StringComparison.Ordinal);
            Assert.Equal(0, Seen(0));
        }
        With(device => IsOwn(device, "matmul_rows", () => ZEngine.Ops.Linear(Normal(1, 8, 64).To(device), Normal(2, 64, 64).To(device))));
        With(device => IsOwn(device, "matmul_float<bf16", () => ZEngine.Ops.Linear(Normal(1, 9, 64).To(device), Normal(2, 64, 64).To(DType.BFloat16).To(device))));
        With(device => IsOwn(device, "matmul_half<bf16", () => ZEngine.Ops.Linear(Normal(1, 9, 64).To(DType.BFloat16).To(device), Normal(2, 64, 64).To(DType.BFloat16).To(device), Normal(3, 64).To(device))));
        With(device => IsOwn(device, "matmul_float<f32", () => ZEngine.Ops.Linear(Normal(1, 9, 64).To(device), Normal(2, 64, 64).To(device))), HasNoAlgorithm);
        foreach (Pointwise function in (Pointwise[])[Pointwise.Silu, Pointwise.Gelu, Pointwise.Relu2, Pointwise.Sigmoid])
            With(device => IsOwn(device, "matmul_half<bf16", () => ZEngine.Ops.Linear(Normal(1, 9, 64).To(DType.BFloat16).To(device), Normal(2, 64, 64).To(DType.BFloat16).To(device), activation: function)));
        // Exact floats have more digits than the library's Gelu may have; and rows that are kept of 60 elements are no multiples of 8.
        With(device => IsOwn(device, "matmul_float<f32", () => ZEngine.Ops.Linear(Normal(1, 9, 64).To(device), Normal(2, 64, 64).To(device), activation: Pointwise.GeluTanh)));
        With(device => IsOwn(device, "matmul_half<bf16", () =>
        {
            using Tape tape = Tape.Begin();
            ZEngine.Ops.Linear(tape.Watch(Normal(1, 9, 64).To(DType.BFloat16).To(device)), Normal(2, 60, 64).To(DType.BFloat16).To(device), activation: Pointwise.GeluTanh);
        }));
        With(device =>
        {
            Assert.Equal("own kernels: cuBLASLt is turned off", device.MatMulSource);
            IsOwn(device, "matmul_float<f32", () => ZEngine.Ops.Linear(Normal(1, 9, 64).To(device), Normal(2, 64, 64).To(device)));
        }, options: new CudaOptions { UsesCublasLt = false });
    }

    [Fact]
    public void Failures_are_errors_and_no_reason_to_go_elsewhere()
    {
        With(device => Assert.StartsWith("cublasLtCreate: CUBLAS_STATUS_NOT_INITIALIZED (1)", Assert.Throws<CublasLtException>(() => device.MatMulSource).Message, StringComparison.Ordinal), CreationFails);
        With(device =>
        {
            Assert.Equal($"cuBLASLt 12.4.5 at {Stub.Path}", device.MatMulSource);
            string message = Assert.Throws<CublasLtException>(() => ZEngine.Ops.Linear(Normal(1, 9, 64).To(device), Normal(2, 64, 64).To(device))).Message;
            Assert.StartsWith("cublasLtMatmul: CUBLAS_STATUS_EXECUTION_FAILED (13): the function failed to launch on the GPU.", message, StringComparison.Ordinal);
        }, LaunchFails);
    }

    [Fact]
    public void Emulated_devices_use_own_kernels()
    {
        using var driver = new ZEngine.Emulator.EmulatedCudaDriver();
        using CudaDevice device = CudaDevice.Open(0, driver, new CudaOptions { UsesCublasLt = true, CublasLt = () => throw new InvalidOperationException("nobody may ask") });
        Assert.Equal("own kernels: the driver is none that cuBLASLt could use", device.MatMulSource);
    }
}
