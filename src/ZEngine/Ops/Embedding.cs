namespace ZEngine;

public static partial class Ops
{
    /// <summary>Looks up a row of a table for every token.</summary>
    /// <param name="table">[V, D], of any floating-point type.</param>
    /// <param name="tokens">[...], Int32 or Int64, each from 0 to V - 1.</param>
    /// <returns>[..., D], in the type of the table where the device computes in it, else Float32.</returns>
    /// <exception cref="ArgumentException">A token is outside the table (on the CPU).</exception>
    public static Tensor Embedding(Tensor table, Tensor tokens)
    {
        var contract = new ShapeContract(nameof(Embedding));
        contract.RequireWeight(table, "V D");
        contract.RequireIndex(tokens, "...");
        using TensorScope scope = TensorScope.Enter();
        tokens = tokens.Contiguous();
        table = table.Contiguous();

        Span<long> shape = stackalloc long[Tensor.MaxRank];
        contract.Require(tokens.Rank < Tensor.MaxRank, $"tokens {Tensor.ShapeText(tokens.Shape)} have too many axes.");
        tokens.Shape.CopyTo(shape);
        shape[tokens.Rank] = contract['D'];
        Tensor y = Tensor.Empty(shape[..(tokens.Rank + 1)], table.Device.ActivationType(table.DType), table.Device);
        table.Backend.EmbeddingForward(table, tokens, y);
        return scope.Keep(Tape.Tracks(table) ? RecordEmbedding(table, tokens, y) : y);
    }

    private static Tensor RecordEmbedding(Tensor table, Tensor tokens, Tensor y) => Tape.Record(y, [table], [tokens], dy =>
    {
        Tensor dTable = Tensor.Zeros(table.Shape, DType.Float32, dy.Device);
        dy.Backend.EmbeddingBackward(tokens, dy.Contiguous(), dTable);
        return [dTable];
    });
}

public abstract partial class Backend
{
    /// <summary>y[i] = table[tokens[i]].</summary>
    internal abstract void EmbeddingForward(Tensor table, Tensor tokens, Tensor y);

    /// <summary>dTable[tokens[i]] += dy[i], in the order of i; dTable comes as zeros.</summary>
    internal abstract void EmbeddingBackward(Tensor tokens, Tensor dy, Tensor dTable);
}
