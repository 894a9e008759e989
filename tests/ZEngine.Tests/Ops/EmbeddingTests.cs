using ZEngine.Emulator;
using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class EmbeddingTests
{
    internal static Tensors Apply(EngineInputs x) => new() { ["y"] = ZEngine.Ops.Embedding(x["weight"], x["ids"]) };

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Case("embedding", "an id twice").Normal("weight", [5, 3]).Integers("ids", [2, 2], [4, 1, 4, 0]).Build(),
        Case("embedding", "wide rows").Normal("weight", [11, 130]).Integers("ids", [3, 7], 11).Build(),
    ]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    [Theory]
    [InlineData(-1), InlineData(5)]
    public void Rejects_a_token_outside_the_table(int token)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor table = Tensor.Zeros([5, 3], DType.Float32, Device.Cpu), tokens = Tensor.From<int>([0, token], [2], Device.Cpu);
        Assert.Equal($"Embedding: token 1 of [2] is {token}, but the table has 5 rows.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.Embedding(table, tokens)).Message);
    }

    [Theory]
    [InlineData(40, 128, 200, 0)]      // one digit, wide rows
    [InlineData(1000, 6, 3000, 0)]     // two digits, several tiles, narrow rows
    [InlineData(300_000, 4, 500, 0)]   // three digits of which the upper are sparse
    [InlineData(9, 40, 700, 3)]        // the same token often
    [InlineData(9, 40, 700, 700)]      // one token alone
    [InlineData(1, 4, 130, 0)]         // a table of one row
    public void Gradient_adds_rows_token_by_token(int rows, int width, int count, int repeats)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        var random = new Random(rows + count);
        long[] tokens = [.. Enumerable.Range(0, count).Select(i => repeats > 0 && i % Math.Max(1, count / repeats) == 0 ? rows / 2 : (long)random.Next(rows))];
        Tensor dy = counted.Normal(1, count, width);
        foreach (DType dtype in (ReadOnlySpan<DType>)[DType.Int32, DType.Int64])
        {
            Tensor dTable = Tensor.Zeros([rows, width], DType.Float32, counted.Device);
            counted.Device.Backend.EmbeddingBackward(Tensor.From<long>(tokens, [count], counted.Device).To(dtype), dy, dTable);
            double[] want = new double[rows * width], size = new double[rows * width];
            float[] d = dy.ToArray<float>(), got = dTable.ToArray<float>();
            for (int i = 0; i < count; i++)
            for (int c = 0; c < width; c++)
            {
                want[tokens[i] * width + c] += d[i * width + c];
                size[tokens[i] * width + c] += Math.Abs(d[i * width + c]);
            }
            for (int i = 0; i < want.Length; i++) Assert.True(Math.Abs(want[i] - got[i]) <= 4e-6 * size[i], $"{dtype} [{i}]: got {got[i]:R}, want {want[i]:R}");
        }
    }

    [Fact]
    public void A_token_outside_the_table_stops_the_kernel()
    {
        foreach (int token in (ReadOnlySpan<int>)[-1, 5])
        {
            using var counted = new CountedDevice();
            using TensorScope scope = TensorScope.Enter();
            Tensor table = Tensor.Zeros([5, 3], DType.Float32, counted.Device);
            Tensor y = ZEngine.Ops.Embedding(table, Tensor.From<int>([0, token], [2], counted.Device));
            Assert.Contains("trap", Assert.ThrowsAny<Exception>(() => y.ToArray<float>()).ToString(), StringComparison.OrdinalIgnoreCase);
        }
    }

    [Fact]
    public void Reads_tables_of_sixteen_bits()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor tokens = Tensor.From<long>([2, 0, 2, 6], [2, 2], counted.Device);
        foreach (DType dtype in (ReadOnlySpan<DType>)[DType.BFloat16, DType.Float16])
        foreach (long width in (ReadOnlySpan<long>)[12, 5])
        {
            Tensor table = counted.Normal(1, 7, width).To(dtype);
            Assert.Equal(ZEngine.Ops.Embedding(table.To(DType.Float32), tokens).ToArray<float>(), ZEngine.Ops.Embedding(table, tokens).To(DType.Float32).ToArray<float>());
        }
    }

    [Fact]
    public void Traffic_equals_the_header()
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        const int rows = 40, width = 128, count = 200, digits = 64, run = 64, chunks = 4;
        long[] tokens = [.. Enumerable.Range(0, count).Select(i => (long)(i * i % rows))], sorted = [.. tokens.Order()];
        Tensor table = tape.Watch(counted.Normal(1, rows, width)), ids = Tensor.From<long>(tokens, [count], counted.Device), dy = counted.Normal(2, count, width);
        Tensor y = ZEngine.Ops.Embedding(table, ids);
        LaunchProfile[] forward = counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] backward = counted.Launches();
        CountedDevice.Are(["embedding_forward"], forward);
        CountedDevice.Moved(4 * count * width + 8 * count * width / 4, 4 * count * width, forward[0]);           // each thread of 4 columns asks for the token
        CountedDevice.Are(["embedding_count", "embedding_scan", "embedding_scatter", "embedding_runs", "embedding_heads"], backward);
        CountedDevice.Moved(8 * count, 4 * digits, backward[0]);
        CountedDevice.Moved(4 * digits, 4 * digits, backward[1]);
        CountedDevice.Moved(8 * count + 4 * digits, 8 * count, backward[2]);
        int runs = Enumerable.Range(0, count).Count(i => i % run == 0 || sorted[i] != sorted[i - 1]), heads = Enumerable.Range(1, chunks - 1).Count(c => sorted[c * run] == sorted[c * run - 1]);
        Assert.True(heads > 0);
        CountedDevice.Moved(8 * (count + chunks - 1) + 4 * count * width, 4L * runs * width, backward[3]);
        Assert.Equal(4L * heads * width, backward[4].GlobalBytesWritten);
        Assert.Equal(4L * runs * width / 32, backward[3][InstructionClass.GlobalStore].Sectors);
        Assert.Equal(4L * runs * width / 16, backward[3][InstructionClass.GlobalStore].Threads);
    }
}
