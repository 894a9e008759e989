namespace ZEngine.Tests.Core;

/// <summary>Boundaries of packed sequences.</summary>
public sealed class SequenceLayoutTests
{
    [Fact]
    public void Boundaries_are_read_back()
    {
        var layout = new SequenceLayout(0, 3, 4, 9);
        Assert.Equal((3, 9L, 3L, 4L), (layout.Count, layout.Length, layout.Start(1), layout.End(1)));
        Assert.Equal([0L, 3, 4, 9], layout.CuSeqlens.ToArray());
    }

    [Fact]
    public void Boundaries_are_copied()
    {
        long[] ends = [0, 2];
        var layout = new SequenceLayout(ends);
        ends[1] = 5;
        Assert.Equal(2, layout.Length);
    }

    [Theory]
    [InlineData(new long[0], "SequenceLayout: cuSeqlens must begin with 0 and end with the row's length, got [].")]
    [InlineData(new long[] { 0 }, "SequenceLayout: cuSeqlens must begin with 0 and end with the row's length, got [0].")]
    [InlineData(new long[] { 1, 2 }, "SequenceLayout: cuSeqlens must begin with 0 and end with the row's length, got [1, 2].")]
    [InlineData(new long[] { 0, 2, 2 }, "SequenceLayout: cuSeqlens must rise, got 2 before 2 at 2.")]
    [InlineData(new long[] { 0, -1 }, "SequenceLayout: cuSeqlens must rise, got 0 before -1 at 1.")]
    public void Rejects_what_is_no_layout(long[] cuSeqlens, string message) =>
        Assert.Equal(message, Assert.Throws<ArgumentException>(() => new SequenceLayout(cuSeqlens)).Message);
}
