using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void GatedActivationForward(Pointwise function, Tensor gate, Tensor up, Tensor y)
    {
        long width = y.Shape[^1];
        For(y.Count / Math.Max(1, width), RowGrain(width), function, new GatedForwardKernel(F32(gate), gate.RowStride(), F32(up), up.RowStride(), width, F32(y)));
    }

    internal override void GatedActivationBackward(Pointwise function, Tensor gate, Tensor up, Tensor dy, Tensor dGate, Tensor dUp)
    {
        long width = dy.Shape[^1];
        For(dy.Count / Math.Max(1, width), RowGrain(width), function, new GatedBackwardKernel(F32(gate), gate.RowStride(), F32(up), up.RowStride(),
            width, F32(dy), F32(dGate), dGate.RowStride(), F32(dUp), dUp.RowStride()));
    }

    private readonly struct GatedForwardKernel(float* gate, long gateStride, float* up, long upStride, long width, float* y) : IPointwiseKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T, TFunction>(long begin, long end) where T : struct, IFloats<T> where TFunction : IPointwise
        {
            for (long row = begin; row < end; row++)
            for (long i = 0; i < width; i += T.Width)
            {
                T g = T.LoadUpTo(gate + row * gateStride + i, width - i), u = T.LoadUpTo(up + row * upStride + i, width - i);
                (TFunction.Value(g) * u).StoreUpTo(y + row * width + i, width - i);
            }
        }
    }

    private readonly struct GatedBackwardKernel(
        float* gate, long gateStride, float* up, long upStride, long width, float* dy, float* dGate, long dGateStride, float* dUp, long dUpStride) : IPointwiseKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T, TFunction>(long begin, long end) where T : struct, IFloats<T> where TFunction : IPointwise
        {
            for (long row = begin; row < end; row++)
            for (long i = 0; i < width; i += T.Width)
            {
                T g = T.LoadUpTo(gate + row * gateStride + i, width - i), u = T.LoadUpTo(up + row * upStride + i, width - i), d = T.LoadUpTo(dy + row * width + i, width - i);
                (d * u * TFunction.Derivative(g)).StoreUpTo(dGate + row * dGateStride + i, width - i);
                (d * TFunction.Value(g)).StoreUpTo(dUp + row * dUpStride + i, width - i);
            }
        }
    }
}
