using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Interop;
using ZEngine.Tests.Interop;
using ZEngine.Tests.Ops;

namespace ZEngine.Tests.Emulator;

/// <summary>kernels/AttentionDecode.cu and kernels/DecodeCache.cu: what they move and multiply against the least, and places beyond 2³¹ elements.</summary>
public sealed class AttentionDecodeKernelTests
{
    private static readonly int[] Architectures = [80, 86, 89, 90];

    private static Tensor Random(CountedDevice counted, ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(DType.BFloat16);

    /// <summary>A cache of which all but the last position is taken, and a launch that takes it.</summary>
    private static (LaunchProfile Launch, DecodeCache Cache) Decode(CountedDevice counted, long batch, long heads, long groups, long p, long keys, bool isBytes = false, int window = 0)
    {
        DecodeCache cache = DecodeCache.Contiguous(counted.Device, isBytes ? DType.Int8 : DType.BFloat16, batch, keys, groups, p);
        ZEngine.Ops.AppendKeyValues(Random(counted, 1, batch, keys - 1, groups, p), Random(counted, 2, batch, keys - 1, groups, p), cache);
        Tensor q = Random(counted, 3, batch, 1, heads, p), k = Random(counted, 4, batch, 1, groups, p), angles = counted.Normal(5, keys, p / 2);
        counted.Launches();
        ZEngine.Ops.AttentionDecode(q, k, k, cache, new DecodeRotary(angles, angles), new AttentionOptions(Window: window));
        return (Assert.Single(counted.Launches()), cache);
    }

    public static TheoryData<int, long, long, long, bool> Gates => new()
    {
        { 80, 8, 2, 128, false }, { 86, 8, 2, 128, false }, { 89, 8, 2, 128, false }, { 90, 8, 2, 128, false },
        { 80, 4, 1, 80, false }, { 80, 2, 1, 224, false }, { 80, 4, 1, 128, true }, { 80, 2, 2, 64, false },
    };

    [Theory, MemberData(nameof(Gates))]
    public void One_launch_reads_every_key_and_value_once(int architecture, long heads, long groups, long p, bool isBytes)
    {
        using var counted = new CountedDevice(architecture);
        using TensorScope scope = TensorScope.Enter();
        const long keys = 1024;
        (LaunchProfile launch, DecodeCache cache) = Decode(counted, 1, heads, groups, p, keys, isBytes);
        Assert.Contains("attention_decode", launch.Kernel, StringComparison.Ordinal);
        long row = 2 * p * cache.Keys.DType.Size + (isBytes ? 8 : 0), least = keys * groups * row;
        var plan = AttentionDecodePlan.For(heads / groups, p, DType.BFloat16, cache.Keys.DType, keys, 0);
        // The copies are every key and value, and nothing else is copied.
        Assert.Equal(least, launch[InstructionClass.AsyncCopy].Bytes);
        Assert.InRange((double)launch.GlobalBytesRead / least, 1, 1.03);
        Assert.InRange((double)launch[InstructionClass.AsyncCopy].Bytes / launch.GlobalBytesRead, 0.97, 1);
        long scratch = plan.Splits == 1 ? 0 : plan.Splits * heads * (p + 2) * 4;
        Assert.InRange((double)scratch / least, 0, 0.0101);
        // The new row, partial results, o and lse, and the length.
        long output = heads * (2 * p + 4);
        Assert.Equal(groups * row + scratch + output + 8, launch.GlobalBytesWritten);
        // Every block takes a ticket of its key head and the last of each one of the sequence.
        Assert.Equal(groups * plan.Splits + groups, launch[InstructionClass.Atomic].Threads);
        // A group's heads are one tile of 16 rows, for both products; rows of 80 channels are not padded to 128.
        Assert.Equal(groups * keys * 16 * 2 * 2 * p, launch.MatrixFlops);
        Assert.Equal(4 * launch[InstructionClass.MatrixLoad].Executions, launch[InstructionClass.MatrixLoad].Wavefronts);
        TestContext.Current.SendDiagnosticMessage($"sm_{architecture} P {p}: {(double)launch.GlobalBytesRead / least:F4} of the least, scratch {(double)scratch / least:P2}, {plan}");
    }

    /// <summary>A window loads its own keys and no others; heads of a group add none; a cache with room to spare, but for tickets, none either.</summary>
    [Fact]
    public void Work_that_is_not_needed_is_not_done()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long keys = 600, p = 32;
        long Copied(long heads, int window) => Decode(counted, 1, heads, 1, p, keys, window: window).Launch[InstructionClass.AsyncCopy].Bytes;
        Assert.Equal(keys * 2 * p * 2, Copied(1, 0));
        Assert.Equal(keys * 2 * p * 2, Copied(16, 0));
        foreach (int window in (ReadOnlySpan<int>)[1, 31, 100, 513]) Assert.Equal(window * 2 * p * 2, Copied(2, window));

        DecodeCache roomy = DecodeCache.Contiguous(counted.Device, DType.BFloat16, 1, 20_000, 1, p);
        Tensor one = Random(counted, 1, 1, 1, 1, p);
        ZEngine.Ops.AttentionDecode(one, one, one, roomy);
        LaunchProfile launch = counted.Launches()[^1];
        Assert.Equal(2 * p * 2, launch[InstructionClass.AsyncCopy].Bytes);
        Assert.Equal(AttentionDecodePlan.For(1, p, DType.BFloat16, DType.BFloat16, 20_000, 0).Splits + 1, launch[InstructionClass.Atomic].Threads);
    }

    /// <summary>The registers of the header's class, so that a multiprocessor holds four blocks, and nothing spills.</summary>
    [Theory, InlineData("AttentionDecode.cu", 128), InlineData("DecodeCache.cu", 64)]
    public void Registers_stay_below_their_bound(string file, int most)
    {
        foreach (int architecture in Architectures)
        {
            foreach (string variant in KernelSources.Current.Variants[file])
            {
                ModuleImage image = Compiler.Compile(KernelSources.Current.Request(file, $"sm_{architecture}", variant));
                var r = image.Resources[image.Lowered(variant)];
                Assert.True(r.Registers <= most && r.StackBytes + r.SpillLoadBytes + r.SpillStoreBytes == 0, $"sm_{architecture} {variant}: {r}");
            }
        }
    }

    /// <summary>Splits and shared memory depend on sizes alone; partial results are at most a hundredth of the keys and values; two stages at least fit every architecture.</summary>
    [Fact]
    public void Plans_keep_their_bounds()
    {
        foreach (DType type in (ReadOnlySpan<DType>)[DType.Float32, DType.BFloat16])
        foreach (DType stored in (ReadOnlySpan<DType>)[type, DType.Int8])
        for (long p = 16; p <= 256; p += 8)
        foreach (long heads in (ReadOnlySpan<long>)[1, 4, 8, 16])
        {
            var plan = AttentionDecodePlan.For(heads, p, type, stored, 1 << 20, 0);
            Assert.InRange(plan.SharedBytes, 1, 96 << 10);
            Assert.InRange(plan.Stages, 2, 3);
            Assert.Equal(0, plan.Split % AttentionDecodePlan.Aligned);
            Assert.True((1 << 20) <= (long)plan.Split * plan.Splits);
            double share = 4.0 * heads * (p + 2) / (plan.Split * 2 * p * stored.Size);
            Assert.True(share <= 0.01 || plan.Split == AttentionDecodePlan.MostSplit, $"{plan} for {heads} heads of {p}: {share:P2}");
            Assert.Equal(plan.Split, AttentionDecodePlan.For(heads, p, type, stored, 2000, 100).Split);
        }
    }

    /// <summary>One sequence on the first page and one on the last, beyond 2³¹ elements; nobody touches what is between.</summary>
    [Theory, InlineData(false), InlineData(true)]
    public void Offsets_have_64_bits(bool isBytes)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long p = 64, page = 1024, pages = (1L << 31) / (p * page) + 2;
        DType stored = isBytes ? DType.Int8 : DType.BFloat16;
        DecodeCache Cache(long count)
        {
            Tensor keys = Tensor.Empty([count, page, 1, p], stored, counted.Device);
            return new(keys, Tensor.Empty(keys.Shape, stored, counted.Device), Tensor.Zeros([2], DType.Int64, counted.Device), Tensor.Zeros([2, 2], DType.Int32, counted.Device),
                Tensor.From<int>([0, (int)count - 1], [2, 1], counted.Device), isBytes ? Tensor.Empty([count, 1, page, 2], DType.Float32, counted.Device) : null);
        }
        Tensor k = Random(counted, 1, 2, 40, 1, p), v = Random(counted, 2, 2, 40, 1, p), q = Random(counted, 3, 2, 1, 2, p), next = Random(counted, 4, 2, 1, 1, p);
        float[] Decode(DecodeCache cache)
        {
            ZEngine.Ops.AppendKeyValues(k, v, cache);
            float[] o = ZEngine.Ops.AttentionDecode(q, next, next, cache).O.To(DType.Float32).ToArray<float>();
            return [.. o, .. ZEngine.Ops.ReadKeyValues(cache, 41, DType.BFloat16).Values.To(DType.Float32).ToArray<float>()];
        }
        DecodeCache far = Cache(pages);
        Assert.True(far.Keys.Count > 1L << 31);
        Assert.Equal(Decode(Cache(2)), Decode(far));
    }

    [Fact]
    public void Appending_and_reading_move_every_element_once()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long length = 24, groups = 2, p = 80, rows = length * groups;
        DecodeCache cache = DecodeCache.Contiguous(counted.Device, DType.BFloat16, 1, 32, groups, p), bytes = DecodeCache.Contiguous(counted.Device, DType.Int8, 1, 32, groups, p);
        Tensor k = Random(counted, 1, 1, length, groups, p);
        counted.Launches();
        ZEngine.Ops.AppendKeyValues(k, k, cache);
        ZEngine.Ops.AppendKeyValues(k, k, bytes);
        ZEngine.Ops.ReadKeyValues(cache, length, DType.BFloat16);
        LaunchProfile[] launches = counted.Launches();
        CountedDevice.Are(["decode_cache_append", "decode_cache_append", "decode_cache_read"], launches);
        // Every lane of a row's warp asks for its sequence's length; the last block reads and writes it.
        const long elements = 2 * rows * p, lengths = rows * 32 * 8;
        CountedDevice.Moved(2 * elements + lengths + 8, 2 * elements + 8, launches[0]);
        CountedDevice.Moved(2 * elements + lengths + 8, elements + 2 * 4 * rows + 8, launches[1]);
        CountedDevice.Moved(2 * elements + lengths, 2 * elements, launches[2]);
        Assert.Equal(16 * launches[2][InstructionClass.GlobalStore].Threads, launches[2].GlobalBytesWritten);
    }
}
