namespace ZEngine.Tests.Core;

/// <summary>Views against a list that knows for every element which base element it is.</summary>
public sealed class TensorViewTests
{
    public static TheoryData<int> Seeds => [.. Enumerable.Range(1, 40)];

    [Theory, MemberData(nameof(Seeds))]
    public void Chains_of_views_equal_the_index_model(int seed)
    {
        var random = new Random(seed);
        for (int round = 0; round < 50; round++)
        {
            using TensorScope scope = TensorScope.Enter();
            var model = IndexModel.Base(RandomShape(random));
            Tensor x = Tensor.From<int>([.. model.Indices.Select(i => (int)i)], model.Shape, Device.Cpu);
            for (int step = 0; step < 5; step++)
            {
                (x, model) = Step(random, x, model);
                Assert.Equal(model.Shape, x.Shape.ToArray());
                Assert.Equal(model.Indices, x.ToArray<int>().Select(value => (long)value));
                CheckLayout(x);
            }
        }
    }

    [Theory, MemberData(nameof(Seeds))]
    public void Reshape_is_a_view_exactly_where_strides_allow_it(int seed)
    {
        var random = new Random(seed);
        for (int round = 0; round < 50; round++)
        {
            using TensorScope scope = TensorScope.Enter();
            var model = IndexModel.Base(RandomShape(random, least: 1));
            Tensor x = Tensor.Empty(model.Shape, DType.UInt8, Device.Cpu);
            for (int step = 0; step < 3; step++) (x, model) = Cut(random, x, model);
            long[] shape = Factorized(random, x.Count);
            Tensor reshaped = x.Reshape(shape);
            bool isView = ReferenceEquals(reshaped.Storage, x.Storage);
            Assert.True(isView == (model.Count == 0 || model.Reshape(shape).IsStrided), $"{x} with strides {Tensor.ShapeText(x.Strides)} to {Tensor.ShapeText(shape)}: {(isView ? "a view" : "a copy")}");
        }
    }

    [Theory, MemberData(nameof(Seeds))]
    public void Gradients_pass_through_chains_of_views(int seed)
    {
        var random = new Random(seed);
        for (int round = 0; round < 10; round++)
        {
            using Tape tape = Tape.Begin();
            var model = IndexModel.Base(RandomShape(random));
            Tensor x = tape.Watch(Tensor.From<float>([.. model.Indices.Select(i => (float)i)], model.Shape, Device.Cpu)), y = x;
            for (int step = 0; step < 4; step++) (y, model) = Step(random, y, model);
            if (y == x || model.Count == 0) continue;
            float[] weights = [.. model.Indices.Select(_ => (float)random.Next(-9, 10))], expected = new float[x.Count];
            foreach ((int i, long index) in model.Indices.Index()) expected[index] += weights[i];
            tape.Backward(y, Tensor.From<float>(weights, model.Shape, Device.Cpu));
            Assert.Equal(expected, tape.GradientOf(x).ToArray<float>());
        }
    }

    [Fact]
    public void View_writes_into_its_base()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([2, 3], DType.Float32, Device.Cpu);
        ZEngine.Ops.Copy(Tensor.From<float>([1, 2], [2], Device.Cpu), x.Select(1, 1));
        Assert.Equal([0, 1, 0, 0, 2, 0], x.ToArray<float>());
    }

    [Fact]
    public void Rejects_what_is_not_there()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([2, 3], DType.Float32, Device.Cpu);
        Assert.Equal("Tensor.Slice: 1..4 is outside axis 1 of Float32 [2, 3] on cpu.", Message(() => x.Slice(1, 1, 3)));
        Assert.Equal("Tensor.Slice: -1..1 is outside axis 0 of Float32 [2, 3] on cpu.", Message(() => x.Slice(-2, -1, 2)));
        Assert.StartsWith("Tensor.Slice: ", Message(() => x.Slice(0, 1, long.MaxValue)), StringComparison.Ordinal);
        Assert.Equal("Tensor.Transpose: Float32 [2, 3] on cpu has no axis 2.", Message(() => x.Transpose(0, 2)));
        Assert.Equal("Tensor.Select: 3 is outside axis 1 of Float32 [2, 3] on cpu.", Message(() => x.Select(-1, 3)));
        Assert.Equal("Tensor.Select: Float32 [2, 3] on cpu has no axis -3.", Message(() => x.Select(-3, 0)));
        Assert.Equal("Tensor.Reshape: Float32 [2, 3] on cpu has 6 elements, which do not fill [4, -1].", Message(() => x.Reshape(4, -1)));
        Assert.Equal("Tensor.Reshape: Float32 [2, 3] on cpu has 6 elements, which do not fill [7].", Message(() => x.Reshape(7)));
        Assert.Equal("Tensor.Reshape: one size may be -1, got [-1, -1].", Message(() => x.Reshape(-1, -1)));
        Assert.Equal("Tensor.Reshape: Float32 [2, 3] on cpu has 6 elements, which do not fill [4294967296, 4294967296, 2].", Message(() => x.Reshape(1L << 32, 1L << 32, 2)));
        Assert.Equal("Tensor.Reshape: Float32 [2, 3] on cpu has 6 elements, which do not fill [0, -1].", Message(() => x.Reshape(0, -1)));
        Assert.Equal("Tensor.Reshape: at most 6 axes, got [1, 1, 1, 1, 1, 1, 6].", Message(() => x.Reshape(1, 1, 1, 1, 1, 1, 6)));
    }

    /// <summary>Dense inner axes and even rows are what they say, for broadcast views too.</summary>
    private static void CheckLayout(Tensor x)
    {
        if (x.Rank == 0 || x.Count == 0) return;
        Evenness(x);
        long[] wider = [2, .. x.Shape.ToArray()];
        if (wider.Length <= Tensor.MaxRank) Evenness(x.BroadcastTo(wider));
        Evenness(x.BroadcastTo([.. x.Shape.ToArray().Select(size => size == 1 ? 3 : size)]));
    }

    private static void Evenness(Tensor x)
    {
        if (!x.HasEvenRows()) return;
        long width = x.Shape[^1], rows = x.Count / width;
        for (long row = 0; row < rows; row++)
        {
            long at = 0, rest = row;
            for (int axis = x.Rank - 2; axis >= 0; axis--)
            {
                (rest, long index) = Math.DivRem(rest, x.Shape[axis]);
                at += index * x.Strides[axis];
            }
            Assert.True(rows == 1 || at == row * x.RowStride(), $"{x} with strides {Tensor.ShapeText(x.Strides)} is not even at row {row}");
        }
    }

    private static (Tensor, IndexModel) Step(Random random, Tensor x, IndexModel model)
    {
        switch (random.Next(6))
        {
            case 0:
                long[] shape = Factorized(random, model.Count);
                long[] asked = [.. shape];
                if (asked.Length > 0 && model.Count > 0 && random.Next(2) == 0) asked[random.Next(asked.Length)] = -1;
                return (x.Reshape(asked), model.Reshape(shape));
            case 1: return (x.Clone(), model);
            case 2: return (x.Contiguous(), model);
            default: return Cut(random, x, model);
        }
    }

    private static (Tensor, IndexModel) Cut(Random random, Tensor x, IndexModel model)
    {
        if (model.Shape.Length == 0) return (x, model);
        int axis = random.Next(model.Shape.Length), other = random.Next(model.Shape.Length);
        int named = random.Next(2) == 0 ? axis : axis - model.Shape.Length;
        switch (random.Next(3))
        {
            case 0:
                long start = random.NextInt64(model.Shape[axis] + 1), length = random.NextInt64(Math.Min(1, model.Shape[axis] - start), model.Shape[axis] - start + 1);
                return (x.Slice(named, start, length), model.Slice(axis, start, length));
            case 1 when model.Shape[axis] > 0:
                long index = random.NextInt64(model.Shape[axis]);
                return (x.Select(named, index), model.Select(axis, index));
            default: return (x.Transpose(named, other), model.Transpose(axis, other));
        }
    }

    private static long[] RandomShape(Random random, int least = 0)
    {
        var shape = new long[random.Next(least, 5)];
        for (int axis = 0; axis < shape.Length; axis++) shape[axis] = random.Next(12) == 0 ? random.Next(least, 2) : random.Next(1, 6);
        return shape;
    }

    /// <summary>A random shape with that many elements.</summary>
    private static long[] Factorized(Random random, long count)
    {
        if (count == 0) return [random.Next(0, 4), 0];
        var shape = new List<long>();
        while (count > 1 && shape.Count < 5)
        {
            long[] divisors = [.. Enumerable.Range(1, (int)count).Select(d => (long)d).Where(d => count % d == 0)];
            long size = shape.Count == 4 ? count : divisors[random.Next(divisors.Length)];
            shape.Add(size);
            count /= size;
        }
        if (count > 1) shape[^1] *= count;
        return [.. shape];
    }

    private static string Message(Action action) => Assert.Throws<ArgumentException>(action).Message;
}
