namespace ZEngine.Tests.Core;

/// <summary>Offsets beyond 2^31 elements, at both ends of a tensor. Needs 4.4 GB.</summary>
public sealed class HugeTensorTests
{
    private const long Width = 256, Rows = (1L << 31) / Width + 8;

    [Fact]
    public void Rows_beyond_two_to_the_31_elements_are_found_and_multiplied()
    {
        if (GC.GetGCMemoryInfo().TotalAvailableMemoryBytes < 8L << 30) Assert.Skip("needs a machine with 8 GB of memory");
        CpuDevice.Instance.Guards = false;                     // poisoning so much memory takes longer than the test
        try
        {
            Multiply();
        }
        finally
        {
            CpuDevice.Instance.Guards = true;
            Device.Cpu.Trim();
        }
    }

    private static void Multiply()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor table = Tensor.Zeros([Rows, Width], DType.BFloat16, Device.Cpu);
        Assert.True(table.Count > int.MaxValue);
        foreach (long row in (ReadOnlySpan<long>)[0, (1L << 31) / Width - 1, (1L << 31) / Width, Rows - 1])
        {
            var values = new BFloat16[Width];
            for (int i = 0; i < Width; i++) values[i] = (BFloat16)(float)(row % 97 + i);
            table.Slice(0, row, 1).CopyFrom<BFloat16>(values);
        }

        Tensor found = ZEngine.Ops.Embedding(table, Tensor.From<long>([Rows - 1, 0, (1L << 31) / Width, (1L << 31) / Width - 1], [4], Device.Cpu));
        float[] got = found.ToArray<float>();
        long[] rows = [Rows - 1, 0, (1L << 31) / Width, (1L << 31) / Width - 1];
        for (int r = 0; r < 4; r++)
        for (int i = 0; i < Width; i++) Assert.Equal((float)(BFloat16)(float)(rows[r] % 97 + i), got[r * Width + i]);

        Tensor ones = Tensor.Empty([1, Width], DType.Float32, Device.Cpu);
        ZEngine.Ops.Fill(ones, 1);
        Tensor sums = ZEngine.Ops.Linear(ones, table);
        foreach (long row in rows)
        {
            float want = 0;
            for (int i = 0; i < Width; i++) want += (BFloat16)(float)(row % 97 + i);
            Assert.Equal(want, sums.Slice(1, row, 1).Item());
        }
        Assert.Equal(0, sums.Slice(1, 1, 1).Item());
    }
}
