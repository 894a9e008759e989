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
}
