namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void Rope(RopeInputs x, Tensor y)
    {
        var steps = new RopeSteps(x);
        For(x.X.Shape[0] * x.X.Shape[1], RowGrain(x.X.Shape[2] * x.X.Shape[3]), new RopeKernel(steps, F32(x.X), F32(x.Cosine), F32(x.Sine), F32(y)));
    }

    /// <param name="x">Sizes, tables and where the first step stands.</param>
    /// <param name="positions">The first step's position in each row of the batch, where they differ; else null.</param>
    private readonly struct RopeSteps(RopeInputs x, long* positions = null)
    {
        public readonly long Length = x.X.Shape[1], Heads = x.X.Shape[2], Channels = x.X.Shape[3], Pairs = x.Cosine.Shape[1];
        public readonly long BatchStride = x.X.Strides[0], StepStride = x.X.Strides[1], HeadStride = x.X.Strides[2];
        public readonly bool IsHalf = x.Style == RotaryStyle.Half;
        public readonly float Sign = x.IsInverse ? -1 : 1;
        private readonly long _offset = x.Offset;
        private readonly long* _positions = positions;
        private readonly SequenceLayout? _layout = x.Layout;

        public long Position(long row, long step)
        {
            if (_positions != null) return Math.Max(0, _positions[row]) + step;
            if (_layout is null) return _offset + step;
            int at = _layout.CuSeqlens.BinarySearch(step);
            return _offset + step - _layout.CuSeqlens[at >= 0 ? at : ~at - 1];
        }
    }

    private readonly struct RopeKernel(RopeSteps steps, float* x, float* cosine, float* sine, float* y) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long row = begin; row < end; row++)
            {
                (long b, long l) = Math.DivRem(row, steps.Length);
                long position = steps.Position(b, l);
                float* c = cosine + position * steps.Pairs, s = sine + position * steps.Pairs;
                for (long h = 0; h < steps.Heads; h++)
                {
                    float* from = x + b * steps.BatchStride + l * steps.StepStride + h * steps.HeadStride, to = y + (row * steps.Heads + h) * steps.Channels;
                    if (steps.IsHalf) RotateHalves<T>(from, c, s, to);
                    else RotateNeighbours(from, c, s, to);
                    for (long i = 2 * steps.Pairs; i < steps.Channels; i++) to[i] = from[i];
                }
            }
        }

        private void RotateHalves<T>(float* from, float* c, float* s, float* to) where T : struct, IFloats<T>
        {
            long n = steps.Pairs;
            T sign = T.Broadcast(steps.Sign);
            for (long i = 0; i < n; i += T.Width)
            {
                T a = T.LoadUpTo(from + i, n - i), b = T.LoadUpTo(from + n + i, n - i), cos = T.LoadUpTo(c + i, n - i), sin = T.LoadUpTo(s + i, n - i) * sign;
                (a * cos - b * sin).StoreUpTo(to + i, n - i);
                (b * cos + a * sin).StoreUpTo(to + n + i, n - i);
            }
        }

        private void RotateNeighbours(float* from, float* c, float* s, float* to)
        {
            for (long i = 0; i < steps.Pairs; i++)
            {
                (float a, float b, float cos, float sin) = (from[2 * i], from[2 * i + 1], c[i], s[i] * steps.Sign);
                (to[2 * i], to[2 * i + 1]) = (a * cos - b * sin, b * cos + a * sin);
            }
        }
    }
}
