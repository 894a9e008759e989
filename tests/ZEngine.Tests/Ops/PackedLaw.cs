namespace ZEngine.Tests.Ops;

/// <summary>
/// Packed sequences against each alone: the same bits of outputs, final states and the gradients of all that belongs to one sequence, with and without a tape. Gradients of parameters
/// are sums over all sequences, which round in another order.
/// </summary>
internal static class PackedLaw
{
    /// <summary>An op of rows [1, L, ...], states [n, ...] and parameters.</summary>
    public delegate (Tensor Y, Tensor Final) Op(Tensor[] rows, Tensor? state, Tensor[] parameters, SequenceLayout? layout);

    public static void Holds(long[] lengths, Op op, Tensor[] rows, Tensor state, Tensor[] parameters, Tensor dy, Tensor dfinal)
    {
        long[] bounds = new long[lengths.Length + 1];
        for (int i = 0; i < lengths.Length; i++) bounds[i + 1] = bounds[i] + lengths[i];
        foreach (bool isRecorded in (ReadOnlySpan<bool>)[false, true])
        foreach (bool hasState in (ReadOnlySpan<bool>)[false, true])
        {
            (float[][] own, float[][] shared) packed = Run(0, lengths.Length, new SequenceLayout(bounds));
            (float[][] own, float[][] shared)[] alone = [.. Enumerable.Range(0, lengths.Length).Select(i => Run(i, 1, null))];
            for (int k = 0; k < packed.own.Length; k++)
            {
                float[] want = [.. alone.SelectMany(part => part.own[k])];
                int differ = want.Zip(packed.own[k]).Count(pair => BitConverter.SingleToInt32Bits(pair.First) != BitConverter.SingleToInt32Bits(pair.Second));
                Assert.True(differ == 0 && want.Length == packed.own[k].Length, $"result {k}{(isRecorded ? ", recorded" : "")}{(hasState ? ", with a state" : "")}: {differ} of {want.Length} differ");
            }
            for (int k = 0; k < packed.shared.Length; k++)
            {
                double scale = Math.Sqrt(packed.shared[k].Average(x => (double)x * x));
                for (int i = 0; i < packed.shared[k].Length; i++)
                    Assert.Equal(alone.Sum(part => (double)part.shared[k][i]), packed.shared[k][i], 1e-5 * (scale + alone.Sum(part => Math.Abs(part.shared[k][i]))));
            }

            (float[][], float[][]) Run(int first, int count, SequenceLayout? layout)
            {
                using TensorScope scope = TensorScope.Enter();
                long start = bounds[first], length = bounds[first + count] - start;
                Tensor[] x = [.. rows.Select(row => row.Slice(1, start, length).Clone())], all = [.. parameters.Select(parameter => parameter.Clone())];
                Tensor? initial = hasState ? state.Slice(0, first, count).Clone() : null;
                if (!isRecorded)
                {
                    (Tensor output, Tensor last) = op(x, initial, all, layout);
                    return ([Floats(output), Floats(last)], []);
                }
                using Tape tape = Tape.Begin();
                foreach (Tensor tensor in (ReadOnlySpan<Tensor>)[.. x, .. all]) tape.Watch(tensor);
                if (initial is not null) tape.Watch(initial);
                (Tensor y, Tensor final) = op(x, initial, all, layout);
                tape.Backward([y, final], [dy.Slice(1, start, length).Clone(), dfinal.Slice(0, first, count).Clone()]);
                List<float[]> own = [Floats(y), Floats(final)];
                foreach (Tensor tensor in x) own.Add(Floats(tape.GradientOf(tensor)));
                if (initial is not null) own.Add(Floats(tape.GradientOf(initial)));
                var shared = new float[all.Length][];
                for (int i = 0; i < all.Length; i++) shared[i] = Floats(tape.GradientOf(all[i]));
                return ([.. own], shared);
            }
        }
    }

    private static float[] Floats(Tensor tensor)
    {
        using NoGradient pause = Tape.NoGrad();
        return tensor.To(DType.Float32).ToArray<float>();
    }
}
