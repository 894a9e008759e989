using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void RmsNormForward(RmsNormInputs x, Tensor y, Tensor rstd, NormSum? sum)
    {
        long width = x.X.Shape[^1], rows = x.X.Count / Math.Max(1, width);
        For(rows, RowGrain(width), new RmsNormForwardKernel(new RmsNormRows(x), new RmsNormSum(sum), F32(x.Weight), F32(y), F32(rstd)));
    }

    internal override void RmsNormBackward(RmsNormInputs x, Tensor? rstd, Tensor dy, RmsNormInputs d, NormSumGradient? sum, Tensor? dGateSquares, PartialSums? sums)
    {
        long width = x.X.Shape[^1], rows = x.X.Count / Math.Max(1, width);
        long block = WeightBlock(rows), blocks = (rows + block - 1) / block;
        using var partials = new CpuScratch(blocks * width);
        For(blocks, 1, new RmsNormBackwardKernel(
            new RmsNormRows(x), new RmsNormSumGradient(sum), F32(x.Weight), F32(rstd), F32(dGateSquares), F32(dy), F32(d.X), F32(d.Z), d.Z?.RowStride() ?? 0, partials.Data, rows, block));
        SumPartials(partials.Data, blocks, width, F32(d.Weight));
    }

    /// <summary>Rows whose contributions to a shared gradient are summed in one go: depends on the rows alone, so the bits do too.</summary>
    private static long WeightBlock(long rows) => Math.Max(16, (rows + 63) / 64);

    private readonly struct RmsNormRows(RmsNormInputs x)
    {
        public readonly float* X = F32(x.X), Z = F32(x.Z);
        public readonly long Stride = x.X.RowStride(), StrideZ = x.Z?.RowStride() ?? 0, Width = x.X.Shape[^1], Group = x.GroupSize;
        public readonly float Epsilon = x.Epsilon;
        public readonly bool GatesFirst = x.Z is not null && x.GateOrder == GateOrder.BeforeNorm, GatesAfter = x.Z is not null && x.GateOrder == GateOrder.AfterNorm;
    }

    /// <summary>What is added to the rows before they are normalised; nothing where there is no sum.</summary>
    private readonly struct RmsNormSum(NormSum? sum)
    {
        public readonly float* Residual = F32(sum?.Residual), Sum = F32(sum?.Sum), Factors = F32(sum?.Factor);
        public readonly long Stride = sum?.Residual.RowStride() ?? 0, Parts = sum?.Scale?.Squares.Shape[^1] ?? 0, Count = sum?.Scale?.Count ?? 0;
        private readonly float* _squares = F32(sum?.Scale?.Squares);
        private readonly float _epsilon = sum?.Scale?.Epsilon ?? 0;

        public float Factor(long row)
        {
            if (_squares == null) return 1;
            float squares = 0;
            for (long p = 0; p < Parts; p++) squares += _squares[row * Parts + p];
            return Factors[row] = 1 / MathF.Sqrt(squares / Count + _epsilon);
        }
    }

    private readonly struct RmsNormSumGradient(NormSumGradient? sum)
    {
        public readonly float* DSum = F32(sum?.DSum), Added = F32(sum?.Added), Factors = F32(sum?.Factor), DAdded = F32(sum?.DAdded), DSquares = F32(sum?.DSquares);
        public readonly long Stride = sum?.Added?.RowStride() ?? 0, Count = sum?.Scale?.Count ?? 0;
    }

    private readonly struct RmsNormForwardKernel(RmsNormRows rows, RmsNormSum added, float* weight, float* y, float* rstd) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            long groups = rows.Width / rows.Group;
            for (long row = begin; row < end; row++)
            for (long g = 0; g < groups; g++)
                rstd[row * groups + g] = Normalize<T>(
                    added.Residual == null ? rows.X + row * rows.Stride + g * rows.Group : Add<T>(row), rows.Z + row * rows.StrideZ + g * rows.Group, weight + g * rows.Group, y + row * rows.Width + g * rows.Group);
        }

        /// <summary>The row of the sum.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private float* Add<T>(long row) where T : struct, IFloats<T>
        {
            float* x = rows.X + row * rows.Stride, residual = added.Residual + row * added.Stride, sum = added.Sum + row * rows.Width;
            T factor = T.Broadcast(added.Factor(row));
            for (long i = 0; i < rows.Width; i += T.Width)
            {
                long rest = rows.Width - i;
                T.MulAdd(T.LoadUpTo(x + i, rest), factor, T.LoadUpTo(residual + i, rest)).StoreUpTo(sum + i, rest);
            }
            return sum;
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private float Normalize<T>(float* x, float* z, float* w, float* to) where T : struct, IFloats<T>
        {
            long n = rows.Group;
            T squares = T.Zero;
            for (long i = 0; i < n; i += T.Width)
            {
                T u = T.LoadUpTo(x + i, n - i);
                if (rows.GatesFirst) u *= Silu.Value(T.LoadUpTo(z + i, n - i));
                u.StoreUpTo(to + i, n - i);
                squares = T.MulAdd(u, u, squares);
            }
            float r = 1 / MathF.Sqrt(squares.Sum() / n + rows.Epsilon);
            T scale = T.Broadcast(r);
            for (long i = 0; i < n; i += T.Width)
            {
                T u = T.LoadUpTo(to + i, n - i) * scale * T.LoadUpTo(w + i, n - i);
                if (rows.GatesAfter) u *= Silu.Value(T.LoadUpTo(z + i, n - i));
                u.StoreUpTo(to + i, n - i);
            }
            return r;
        }
    }

    private readonly struct RmsNormBackwardKernel(
        RmsNormRows rows, RmsNormSumGradient added, float* weight, float* rstd, float* dGateSquares, float* dy, float* dx, float* dz, long strideDz, float* partials, long count, long block) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            long groups = rows.Width / rows.Group;
            for (long at = begin; at < end; at++)
            {
                float* dWeight = partials + at * rows.Width;
                new Span<float>(dWeight, checked((int)rows.Width)).Clear();
                for (long row = at * block; row < Math.Min(count, (at + 1) * block); row++)
                {
                    for (long g = 0; g < groups; g++) Differentiate<T>(row, g * rows.Group, dGateSquares == null ? rstd[row * groups + g] : 1, dWeight + g * rows.Group);
                    if (added.DSum != null) AddTo<T>(added.DSum + row * rows.Width, dx + row * rows.Width);
                    if (added.Added != null) Scale<T>(row);
                }
            }
        }

        private void AddTo<T>(float* x, float* sum) where T : struct, IFloats<T>
        {
            for (long i = 0; i < rows.Width; i += T.Width) (T.LoadUpTo(sum + i, rows.Width - i) + T.LoadUpTo(x + i, rows.Width - i)).StoreUpTo(sum + i, rows.Width - i);
        }

        /// <summary>The gradients of what was added and of its squares, from that of the sum.</summary>
        private void Scale<T>(long row) where T : struct, IFloats<T>
        {
            float* d = dx + row * rows.Width, x = added.Added + row * added.Stride, to = added.DAdded + row * rows.Width;
            float factor = added.Factors[row];
            T scale = T.Broadcast(factor), meets = T.Zero;
            for (long i = 0; i < rows.Width; i += T.Width)
            {
                long rest = rows.Width - i;
                T value = T.LoadUpTo(d + i, rest);
                meets = T.MulAdd(value, T.LoadUpTo(x + i, rest), meets);
                (value * scale).StoreUpTo(to + i, rest);
            }
            added.DSquares[row] = meets.Sum() * (-0.5f * factor * factor * factor / added.Count);
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Differentiate<T>(long row, long offset, float r, float* dWeight) where T : struct, IFloats<T>
        {
            long n = rows.Group, at = row * rows.Width + offset, atZ = row * strideDz + offset;
            float* x = rows.X + row * rows.Stride + offset, z = rows.Z + row * rows.StrideZ + offset, w = weight + offset, to = dx + at;
            T scale = T.Broadcast(r), dot = T.Zero;
            // dn = gradient of the normalised value before the weight; Σ dn·w·u gives the share that acts through the mean.
            for (long i = 0; i < n; i += T.Width)
            {
                T u = T.LoadUpTo(x + i, n - i), dn = T.LoadUpTo(dy + at + i, n - i);
                if (rows.GatesFirst) u *= Silu.Value(T.LoadUpTo(z + i, n - i));
                if (rows.GatesAfter) dn *= Silu.Value(T.LoadUpTo(z + i, n - i));
                dot = T.MulAdd(dn * T.LoadUpTo(w + i, n - i), u, dot);
                T.MulAdd(dn * u, scale, T.LoadUpTo(dWeight + i, n - i)).StoreUpTo(dWeight + i, n - i);
            }
            T mean = T.Broadcast(dGateSquares == null ? dot.Sum() / n * r * r : -2 * dGateSquares[row]);
            for (long i = 0; i < n; i += T.Width)
            {
                T value = T.LoadUpTo(x + i, n - i), u = value, dn = T.LoadUpTo(dy + at + i, n - i), gate = T.Zero, slope = T.Zero;
                if (rows.Z != null)
                {
                    T zi = T.LoadUpTo(z + i, n - i);
                    (gate, slope) = (Silu.Value(zi), Silu.Derivative(zi));
                }
                if (rows.GatesAfter)
                {
                    (dn * u * scale * T.LoadUpTo(w + i, n - i) * slope).StoreUpTo(dz + atZ + i, n - i);
                    dn *= gate;
                }
                if (rows.GatesFirst) u *= gate;
                T du = (dn * T.LoadUpTo(w + i, n - i) - u * mean) * scale;
                if (rows.GatesFirst)
                {
                    (du * value * slope).StoreUpTo(dz + atZ + i, n - i);
                    du *= gate;
                }
                du.StoreUpTo(to + i, n - i);
            }
        }
    }
}
