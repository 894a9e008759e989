using System.Reflection;
using ZEngine.Models;
using ZEngine.Tests.Models;
using ZEngine.Tests.Ops;

namespace ZEngine.Tests.Core;

/// <summary>Uses of tensors that cannot be, outside the ops: each names the call and the tensor.</summary>
public sealed class DisposedTensorTests
{
    /// <summary>Members that say what a tensor was; they hold no memory.</summary>
    private static readonly string[] StillKnown = ["Dispose", "ToString"];

    private static readonly Dictionary<string, Action<Tensor>[]> Uses = new()
    {
        ["CopyFrom"] = [tensor => tensor.CopyFrom<float>([1, 2])],
        ["CopyTo"] = [tensor => tensor.CopyTo(new float[2].AsSpan())],
        ["ToArray"] = [tensor => tensor.ToArray<float>()],
        ["Item"] = [tensor => tensor.Item()],
        ["Clear"] = [tensor => tensor.Clear()],
        ["Reshape"] = [tensor => tensor.Reshape(2, 1), tensor => tensor.Reshape(2)],
        ["Slice"] = [tensor => tensor.Slice(0, 0, 1)],
        ["Select"] = [tensor => tensor.Select(0, 0)],
        ["Transpose"] = [tensor => tensor.Transpose(0, 0)],
        ["Contiguous"] = [tensor => tensor.Contiguous()],
        ["To"] = [tensor => tensor.To(DType.BFloat16), tensor => tensor.To(DType.Float32), tensor => tensor.To(Device.Cpu)],
        ["WriteTo"] = [tensor => tensor.WriteTo(Stream.Null)],
        ["Detach"] = [tensor => tensor.Detach()],
        ["Clone"] = [tensor => tensor.Clone()],
    };

    [Fact]
    public void Every_use_names_the_call_and_the_tensor()
    {
        IEnumerable<string> methods = typeof(Tensor).GetMethods(BindingFlags.Public | BindingFlags.Instance | BindingFlags.DeclaredOnly).Where(method => !method.IsSpecialName).Select(method => method.Name);
        Assert.Equal(methods.Except(StillKnown).Distinct().Order(StringComparer.Ordinal), Uses.Keys.Order(StringComparer.Ordinal));
        Tensor gone = Tensor.Zeros([2], DType.Float32, Device.Cpu);
        gone.Dispose();
        long buffers = Device.Cpu.LiveBuffers;
        foreach ((string call, Action<Tensor>[] uses) in Uses)
        foreach (Action<Tensor> use in uses)
            Assert.StartsWith($"Tensor.{call}: Float32 [2] was disposed", Assert.Throws<ObjectDisposedException>(() => use(gone)).Message, StringComparison.Ordinal);
        Assert.StartsWith("Tensor: Float32 [2] was disposed", Assert.Throws<ObjectDisposedException>(() => Tensor.EmptyLike(gone)).Message, StringComparison.Ordinal);
        Assert.Throws<ObjectDisposedException>(() => gone.Device);
        Assert.Equal((2, 1, DType.Float32, true, "Float32 [2], disposed"), (gone.Count, gone.Rank, gone.DType, gone.IsDisposed, gone.ToString()));
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);
    }

    [Fact]
    public void Tapes_and_parameters_reject_what_has_no_gradient()
    {
        using var other = new OtherDevice();
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(Tensor.Zeros([2], DType.Float32, Device.Cpu)), y = ZEngine.Ops.Scale(x, 2), gone = Tensor.Zeros([2], DType.Float32, Device.Cpu);
        gone.Dispose();
        Assert.StartsWith("Tape.Watch: Int32 [2] on cpu", Message<ArgumentException>(tape, t => t.Watch(Tensor.Zeros([2], DType.Int32, Device.Cpu))), StringComparison.Ordinal);
        Assert.StartsWith("Tape.Watch: Float32 [2], disposed", Message<ObjectDisposedException>(tape, t => t.Watch(gone)), StringComparison.Ordinal);
        Assert.Contains("the loss must have one element, got Float32 [2]", Message<ArgumentException>(tape, t => t.Backward(y)), StringComparison.Ordinal);
        Assert.Contains("the loss, Float32 [2], disposed", Message<ObjectDisposedException>(tape, t => t.Backward(gone)), StringComparison.Ordinal);
        Assert.Contains("was not recorded", Message<ArgumentException>(tape, t => t.Backward(Tensor.Zeros([], DType.Float32, Device.Cpu))), StringComparison.Ordinal);
        Assert.Contains("the gradient, Float32 [2], disposed", Message<ObjectDisposedException>(tape, t => t.Backward(y, gone)), StringComparison.Ordinal);
        Assert.Contains("got Float32 [3]", Message<ArgumentException>(tape, t => t.Backward(y, Tensor.Zeros([3], DType.Float32, Device.Cpu))), StringComparison.Ordinal);
        Assert.Contains("got Int32 [2]", Message<ArgumentException>(tape, t => t.Backward(y, Tensor.Zeros([2], DType.Int32, Device.Cpu))), StringComparison.Ordinal);
        Assert.Contains("got Float32 [2] on other", Message<ArgumentException>(tape, t => t.Backward(y, Tensor.Zeros([2], DType.Float32, other))), StringComparison.Ordinal);

        using var parameter = new Parameter([2], Initializer.Zeros);
        Assert.Contains("the value, Float32 [2], disposed", Assert.Throws<ObjectDisposedException>(() => parameter.Materialize(gone)).Message, StringComparison.Ordinal);
        Assert.Contains("must be a contiguous float [2], got Int32 [2]", Assert.Throws<ArgumentException>(() => parameter.Materialize(Tensor.Zeros([2], DType.Int32, Device.Cpu))).Message, StringComparison.Ordinal);
        Assert.Contains("must be a contiguous float [2], got Float32 [3]", Assert.Throws<ArgumentException>(() => parameter.Materialize(Tensor.Zeros([3], DType.Float32, Device.Cpu))).Message, StringComparison.Ordinal);
        Assert.False(parameter.IsMaterialized);
    }

    [Theory]
    [MemberData(nameof(SmallModels.Names), MemberType = typeof(SmallModels))]
    public void Models_and_sessions_reject_tokens_before_their_state_changes(string name)
    {
        using var other = new OtherDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor gone = Tensor.Zeros([1, 2], DType.Int32, Device.Cpu);
        gone.Dispose();
        using LanguageModel model = SmallModels.New(name);
        using Session session = model.NewSession(maxLength: 8), fresh = model.NewSession(maxLength: 8);
        foreach ((Tensor tokens, string part) in ((Tensor, string)[])
            [
                (gone, "Int32 [1, 2], disposed"), (Tensor.Zeros([1, 2], DType.Float32, Device.Cpu), "must be Int32 or Int64, got Float32 [1, 2]"),
                (Tensor.Zeros([1, 2], DType.Int32, other), "got Int32 [1, 2] on other"), (Tensor.Zeros([2], DType.Int32, Device.Cpu), ", L]"),
                (Tensor.Zeros([1, 0], DType.Int32, Device.Cpu), "at least one step"), (Tensor.From<int>([model.VocabularySize], [1, 1], Device.Cpu), $"{model.VocabularySize}"),
            ])
        {
            Type type = tokens.IsDisposed ? typeof(ObjectDisposedException) : typeof(ArgumentException);
            Assert.Contains(part, Assert.Throws(type, () => session.Append(tokens)).Message, StringComparison.Ordinal);
            Assert.Contains(part, Assert.Throws(type, () => model.Forward(tokens)).Message, StringComparison.Ordinal);
            Assert.Equal(0, session.Length);
        }
        Assert.Equal(fresh.Append([1, 2]).ToArray(), session.Append([1, 2]).ToArray());
    }

    private delegate void Use(Tape tape);

    private static string Message<T>(Tape tape, Use use) where T : Exception
    {
        try
        {
            use(tape);
        }
        catch (T e) when (e.GetType() == typeof(T))
        {
            return e.Message;
        }
        throw new InvalidOperationException($"No {typeof(T).Name}.");
    }
}
