namespace ZEngine;

/// <summary>Several sequences packed one after the other into a single row: states, convolution windows and attention never cross a boundary.</summary>
/// <remarks>Every sequence op takes one; without it each row of the batch is one sequence. Packed input has a batch of 1.</remarks>
public sealed class SequenceLayout
{
    private readonly long[] _cuSeqlens;

    /// <summary>Declares the boundaries.</summary>
    /// <param name="cuSeqlens">0, then the end of each sequence, strictly rising; the last is the length of the row.</param>
    /// <exception cref="ArgumentException">Fewer than two numbers, not from 0, or not rising.</exception>
    public SequenceLayout(params ReadOnlySpan<long> cuSeqlens)
    {
        if (cuSeqlens.Length < 2 || cuSeqlens[0] != 0) throw new ArgumentException($"SequenceLayout: cuSeqlens must begin with 0 and end with the row's length, got {Tensor.ShapeText(cuSeqlens)}.");
        for (int i = 1; i < cuSeqlens.Length; i++)
            if (cuSeqlens[i] <= cuSeqlens[i - 1]) throw new ArgumentException($"SequenceLayout: cuSeqlens must rise, got {cuSeqlens[i - 1]} before {cuSeqlens[i]} at {i}.");
        _cuSeqlens = cuSeqlens.ToArray();
    }

    /// <summary>0, then the end of each sequence.</summary>
    public ReadOnlySpan<long> CuSeqlens => _cuSeqlens;

    /// <summary>How many sequences.</summary>
    public int Count => _cuSeqlens.Length - 1;

    /// <summary>Length of the packed row.</summary>
    public long Length => _cuSeqlens[^1];

    /// <summary>Where sequence <paramref name="index"/> begins.</summary>
    public long Start(int index) => _cuSeqlens[index];

    /// <summary>Where sequence <paramref name="index"/> ends, exclusive.</summary>
    public long End(int index) => _cuSeqlens[index + 1];

    /// <summary>The numbers of the sequences of one step.</summary>
    internal long[] Singles() => [.. from i in Enumerable.Range(0, Count) where End(i) - Start(i) == 1 select (long)i];

    /// <summary>Stretches of at most so many steps that all sequences of a batch fall into; none crosses a boundary.</summary>
    internal static long Stretches(SequenceLayout? layout, long batch, long length, long steps)
    {
        if (layout is null) return batch * ((length + steps - 1) / steps);
        long stretches = 0;
        for (int i = 0; i < layout.Count; i++) stretches += (layout.End(i) - layout.Start(i) + steps - 1) / steps;
        return stretches;
    }
}
