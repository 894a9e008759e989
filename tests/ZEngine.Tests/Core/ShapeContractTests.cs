namespace ZEngine.Tests.Core;

/// <summary>The messages of contracts, word for word.</summary>
public sealed class ShapeContractTests
{
    private delegate void Requirement(ref ShapeContract shape);

    [Fact]
    public void Sizes_that_disagree_are_named()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Floats(2, 17, 4), B = Floats(2, 17, 3), weight = Floats(5, 4), bias = Floats(6);
        Assert.Equal("Scan: B must be [B, L, N], got [2, 17, 3]: N is 4 but axis 2 is 3.", Message((ref s) => { s.Require(x, "B L N"); s.Require(B, "B L N"); }));
        Assert.Equal("Scan: x must be [B, L], got [2, 17, 4]: it has 3 axes.", Message((ref s) => s.Require(x, "B L")));
        Assert.Equal("Scan: bias must be [H, P], got [6]: it has 1 axis.", Message((ref s) => s.Require(bias, "H P")));
        Assert.Equal("Scan: bias must be [..., H, P], got [6]: it has 1 axis.", Message((ref s) => s.Require(bias, "... H P")));
        Assert.Equal("Scan: bias must be [], got [6]: it has 1 axis.", Message((ref s) => s.Require(bias, "")));
        Assert.Equal("Scan: x must be [..., D], got [2, 17, 4]: D is 3 but axis 2 is 4.", Message((ref s) => { s.Require(B, "... D"); s.Require(x, "... D"); }));
        Assert.Equal("Scan: weight must be [rows, 3], got [5, 4]: 3 is 3 but axis 1 is 4.", Message((ref s) => s.Require(weight, "rows 3")));
        Assert.Equal("Scan: bias must be [rows], got [6]: rows is 5 but axis 0 is 6.", Message((ref s) => { s.Require(weight, "rows inner"); s.Require(bias, "rows"); }));
        Assert.Equal("Scan: bias must be [K-1], got [6]: K-1 is 3 but axis 0 is 6.", Message((ref s) => { s.Require(weight, "D K"); s.Require(bias, "K-1"); }));
        Assert.Equal("Scan: weight must be [D, K], got [5, 4]: K is 7 but axis 1 is 4.", Message((ref s) => { s.Require(bias, "K-1"); s.Require(weight, "D K"); }));
        Assert.Equal("Scan: x.Reshape(2, -1) must be [L], got [2, 68]: it has 2 axes.", Message((ref s) => s.Require(x.Reshape(2, -1), "L")));
    }

    [Fact]
    public void Types_are_named()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Floats(2), half = x.To(DType.Float16), tokens = x.To(DType.Int32);
        Assert.Equal("Scan: half has type Float16, which Scan does not take on cpu.", Message((ref s) => s.Require(half, "L")));
        Assert.Equal("Scan: half must be Float32, got Float16.", Message((ref s) => s.RequireFloat32(half, "L")));
        Assert.Equal("Scan: tokens must be a floating-point type, got Int32.", Message((ref s) => s.RequireWeight(tokens, "L")));
        Assert.Equal("Scan: x must be Int32 or Int64, got Float32.", Message((ref s) => s.RequireIndex(x, "L")));
        Assert.Equal("", Message((ref s) => { s.Require(x, "L"); s.Optional(null, "L"); s.OptionalFloat32(null, "L"); s.RequireWeight(half, "L"); s.RequireIndex(tokens, "L"); }));
    }

    [Fact]
    public void Missing_and_disposed_tensors_are_named()
    {
        Tensor gone = Floats(2, 3), none = null!;
        gone.Dispose();
        Assert.Equal("Scan: gone [2, 3] was disposed, by hand or with the scope that owned it.", Message((ref s) => s.Require(gone, "B L")).Split(Environment.NewLine)[0]);
        Assert.Equal("Scan: none is null. (Parameter 'none')", Message((ref s) => s.Require(none, "B L")));
    }

    [Fact]
    public void Layouts_fit_the_batch_and_the_length()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor two = Floats(2, 5), one = Floats(1, 5);
        Assert.Equal("Scan: packed sequences need B = 1, got 2.", Message((ref s) => { s.Require(two, "B L"); s.RequireLayout(new SequenceLayout(0, 5)); }));
        Assert.Equal("Scan: cuSeqlens ends at 4 but L is 5.", Message((ref s) => { s.Require(one, "B L"); s.RequireLayout(new SequenceLayout(0, 2, 4)); }));
        Assert.Equal("", Message((ref s) => { s.Require(one, "B L"); s.RequireLayout(new SequenceLayout(0, 2, 5)); s.RequireLayout(null); }));
    }

    [Fact]
    public void Letters_are_bound_once()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Floats(2, 0, 4);
        var shape = new ShapeContract("Scan");
        shape.Bind('N', 4);
        shape.Require(x, "B L N");
        Assert.Equal((2L, 0L, 4L), (shape['B'], shape['L'], shape['N']));
        Assert.Equal("Scan: no.", Message((ref s) => s.Require(false, "no.")));
        Assert.Equal("ShapeContract: a call has at most three words, width is the fourth.", Message((ref s) => s.Require(Floats(1, 2, 3, 4), "rows inner columns width")));
    }

    private static string Message(Requirement requirement)
    {
        var shape = new ShapeContract("Scan");
        try
        {
            requirement(ref shape);
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException)
        {
            return e.Message;
        }
        return "";
    }

    private static Tensor Floats(params long[] shape) => Tensor.Zeros(shape, DType.Float32, Device.Cpu);
}
