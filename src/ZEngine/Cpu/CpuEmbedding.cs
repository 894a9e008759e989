namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void EmbeddingForward(Tensor table, Tensor tokens, Tensor y)
    {
        (long rows, long width) = (table.Shape[0], table.Shape[1]);
        for (long i = 0; i < tokens.Count; i++)
        {
            long token = TokenAt(tokens, i);
            if (token < 0 || token >= rows) throw new ArgumentException($"Embedding: token {i} of {Tensor.ShapeText(tokens.Shape)} is {token}, but the table has {rows} rows.");
        }
        CpuThreads.For(tokens.Count, RowGrain(width), new EmbeddingForwardJob((byte*)table.Address, table.DType, tokens.Address, tokens.DType, width, F32(y)));
    }

    internal override void EmbeddingBackward(Tensor tokens, Tensor dy, Tensor dTable)
    {
        // Pieces are ranges of columns, so no two threads touch one sum and the order of tokens is kept.
        long width = dTable.Shape[1];
        For(width, 64, new EmbeddingBackwardKernel(tokens.Address, tokens.DType, tokens.Count, F32(dy), width, F32(dTable)));
    }

    private static long TokenAt(Tensor tokens, long i) => TokenAt(tokens.Address, tokens.DType, i);

    private static long TokenAt(nint tokens, DType dtype, long i) => dtype == DType.Int32 ? ((int*)tokens)[i] : ((long*)tokens)[i];

    private readonly struct EmbeddingForwardJob(byte* table, DType dtype, nint tokens, DType tokenType, long width, float* y) : IParallelJob
    {
        public void Run(long begin, long end)
        {
            for (long i = begin; i < end; i++)
            {
                byte* row = table + TokenAt(tokens, tokenType, i) * width * dtype.Size;
                float* to = y + i * width;
                if (dtype == DType.Float32) Buffer.MemoryCopy(row, to, width * sizeof(float), width * sizeof(float));
                else if (dtype == DType.BFloat16) for (long d = 0; d < width; d++) to[d] = ((BFloat16*)row)[d];
                else for (long d = 0; d < width; d++) to[d] = (float)((Half*)row)[d];
            }
        }
    }

    private readonly struct EmbeddingBackwardKernel(nint tokens, DType tokenType, long count, float* dy, long width, float* dTable) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long i = 0; i < count; i++)
            {
                float* row = dTable + TokenAt(tokens, tokenType, i) * width;
                for (long d = begin; d < end; d += T.Width)
                    (T.LoadUpTo(row + d, end - d) + T.LoadUpTo(dy + i * width + d, end - d)).StoreUpTo(row + d, end - d);
            }
        }
    }
}
