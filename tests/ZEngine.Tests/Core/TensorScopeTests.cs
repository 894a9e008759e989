namespace ZEngine.Tests.Core;

/// <summary>Who owns a tensor, and until when.</summary>
public sealed class TensorScopeTests
{
    [Fact]
    public void Scope_disposes_what_was_made_inside()
    {
        long buffers = Devices.LiveBuffers(Device.Cpu);
        Tensor x, y;
        using (TensorScope.Enter())
        {
            x = Make();
            y = x.Slice(0, 1, 1);
        }
        Assert.True(x.IsDisposed && y.IsDisposed);
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);
    }

    [Fact]
    public void Without_a_scope_the_caller_owns()
    {
        Tensor x = Make();
        using (TensorScope.Enter()) _ = Make();
        Assert.False(x.IsDisposed);
        x.Dispose();
    }

    [Fact]
    public void Keep_moves_out_by_one_scope()
    {
        Tensor x;
        using (TensorScope outer = TensorScope.Enter())
        {
            using (TensorScope inner = TensorScope.Enter())
                x = inner.Keep(Make());
            Assert.False(x.IsDisposed);
        }
        Assert.True(x.IsDisposed);

        using (TensorScope only = TensorScope.Enter()) x = only.Keep(Make());
        Assert.False(x.IsDisposed);
        x.Dispose();
    }

    [Fact]
    public void Keep_of_a_tensor_from_elsewhere_changes_nothing()
    {
        using Tensor x = Make();
        using (TensorScope scope = TensorScope.Enter()) Assert.Same(x, scope.Keep(x));
        Assert.False(x.IsDisposed);
    }

    [Fact]
    public void Release_hands_a_tensor_of_any_open_scope_to_the_caller()
    {
        Tensor x, y;
        using (TensorScope.Enter())
        {
            x = Make();
            using (TensorScope.Enter())
            {
                y = TensorScope.Release(Make());
                Assert.Same(x, TensorScope.Release(x));
            }
        }
        Assert.False(x.IsDisposed || y.IsDisposed);
        x.Dispose();
        y.Dispose();
    }

    [Fact]
    public void Tensor_disposed_by_hand_inside_a_scope_is_fine()
    {
        long buffers = Devices.LiveBuffers(Device.Cpu);
        using (TensorScope.Enter()) Make().Dispose();
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);
    }

    [Fact]
    public void Wrong_order_of_ends_is_an_error()
    {
        TensorScope outer = TensorScope.Enter(), inner = TensorScope.Enter();
        string message = "";
        try
        {
            outer.Dispose();
        }
        catch (InvalidOperationException e)
        {
            message = e.Message;
        }
        Assert.Equal("TensorScope: scopes must be disposed in the reverse order of their opening, once.", message);
        inner.Dispose();
        outer.Dispose();
        message = "";
        try
        {
            outer.Dispose();
        }
        catch (InvalidOperationException e)
        {
            message = e.Message;
        }
        Assert.StartsWith("TensorScope: ", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Threads_have_scopes_of_their_own()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor? x = null;
        var thread = new Thread(() => x = Make());
        thread.Start();
        thread.Join();
        scope.Keep(x!);
        using (TensorScope.Enter()) Assert.False(x!.IsDisposed);
        x.Dispose();
    }

    [Fact]
    public void Deep_nesting_and_many_tensors_leave_nothing()
    {
        long buffers = Devices.LiveBuffers(Device.Cpu);
        Nest(60);
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);

        static void Nest(int depth)
        {
            using TensorScope scope = TensorScope.Enter();
            var made = new Tensor[3 * depth];
            for (int i = 0; i < made.Length; i++) made[i] = Make();
            if (depth > 0) Nest(depth - 1);
            for (int i = 0; i < made.Length; i += 4) scope.Keep(made[i]).Dispose();
        }
    }

    private static Tensor Make() => Tensor.Zeros([4], DType.Float32, Device.Cpu);
}
