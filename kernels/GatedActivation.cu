// GatedActivation.cu
//
// Computes   y[r,d] = f(gate[r,d])·up[r,d]; dgate[r,d] = dy[r,d]·up[r,d]·f'(gate[r,d]), dup[r,d] = dy[r,d]·f(gate[r,d])
// Source     Shazeer 2020, arXiv:2002.05202, with f one of silu, gelu, gelu_tanh, sigmoid, relu.
// Method     each thread takes V neighbouring channels of a row and goes on by the size of the grid; the row is found by one division. The backward
//            finds f and f' from one exponential. f is an argument, the same for the whole grid.
// Layout     gate, up [R, D] with rows gateStride and upStride apart; y, dy [R, D]; dgate, dup [R, D] with rows of any distance.
// Launch     grid up to 8 blocks a multiprocessor, block 256, 6 of them to a multiprocessor by registers. No shared memory.
// Traffic    forward reads 2·R·D, writes R·D elements; backward reads 3·R·D, writes 2·R·D elements.
// Precision  loads T, computes f32, stores T. Deterministic.
// Limits     fewer than 2³¹ accesses of each tensor; the host launches anew for further rows. Accesses are of 16 bytes where D, the distances of rows and the addresses are multiples of 16 bytes, else of one element.
// Variants   gated_activation_forward<{f32|bf16|f16}>; gated_activation_backward<{f32|bf16|f16}>
#include "common/Pointwise.cuh"
#include "common/Words.cuh"

constexpr int kThreads = 256;
constexpr int kBlocks = 6;                                    // of a multiprocessor at least: at most 40 registers

struct Activation { f32 value, slope; };

// The compiler finds what the value and the slope have in common, as it knows the function in each branch.
__device__ inline Activation activation(int function, f32 x)
{
    switch (function)
    {
        case kSilu: return {pointwise(kSilu, x), pointwise_slope(kSilu, x)};
        case kGelu: return {pointwise(kGelu, x), pointwise_slope(kGelu, x)};
        case kGeluTanh: return {pointwise(kGeluTanh, x), pointwise_slope(kGeluTanh, x)};
        case kSigmoid: return {pointwise(kSigmoid, x), pointwise_slope(kSigmoid, x)};
        default: return {pointwise(kRelu, x), pointwise_slope(kRelu, x)};
    }
}

template <typename T>
struct GatedActivationArgs                                    // mirrored in CudaGatedActivation.cs, field for field
{
    const T* gate; const T* up; T* y;
    i64 R, D, gateStride, upStride;
    i32 function, isWide;
};

template <int V, typename T>
__device__ inline void forward(const GatedActivationArgs<T>& args)
{
    using Words = PackedWords<T, V>;
    const u32 groups = args.D / V, items = args.R * groups;
    for (u32 item = blockIdx.x * kThreads + threadIdx.x; item < items; item += gridDim.x * kThreads)
    {
        const i64 r = item / groups;                          // a row's distance may exceed 2³¹
        const u32 d = (item - (u32)r * groups) * V;
        Words gate, up;
        gate.load(args.gate + r * args.gateStride + d);
        up.load(args.up + r * args.upStride + d);
        #pragma unroll
        for (int i = 0; i < Words::kCount; i++)
        {
            f32 g[Words::kEach], u[Words::kEach];
            gate.open(g, i);
            up.open(u, i);
            #pragma unroll
            for (int v = 0; v < Words::kEach; v++) u[v] *= activation(args.function, g[v]).value;
            up.close(i, u);
        }
        up.store(args.y + r * args.D + d);
    }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks) gated_activation_forward(const GatedActivationArgs<T> args)
{
    if (args.isWide) forward<kVector<T, true>>(args);
    else forward<1>(args);
}

template <typename T>
struct GatedActivationBackwardArgs                            // mirrored in CudaGatedActivation.cs, field for field
{
    const T* gate; const T* up; const T* dy; T* dgate; T* dup;
    i64 R, D, gateStride, upStride, dgateStride, dupStride;
    i32 function, isWide;
};

template <int V, typename T>
__device__ inline void backward(const GatedActivationBackwardArgs<T>& args)
{
    using Words = PackedWords<T, V>;
    const u32 groups = args.D / V, items = args.R * groups;
    for (u32 item = blockIdx.x * kThreads + threadIdx.x; item < items; item += gridDim.x * kThreads)
    {
        const i64 r = item / groups;                          // a row's distance may exceed 2³¹
        const u32 d = (item - (u32)r * groups) * V;
        Words gate, up, dy;
        gate.load(args.gate + r * args.gateStride + d);
        up.load(args.up + r * args.upStride + d);
        dy.load(args.dy + r * args.D + d);
        #pragma unroll
        for (int i = 0; i < Words::kCount; i++)
        {
            f32 g[Words::kEach], u[Words::kEach], y[Words::kEach];
            gate.open(g, i);
            up.open(u, i);
            dy.open(y, i);
            #pragma unroll
            for (int v = 0; v < Words::kEach; v++)
            {
                const Activation f = activation(args.function, g[v]);
                g[v] = y[v] * u[v] * f.slope;
                u[v] = y[v] * f.value;
            }
            gate.close(i, g);
            up.close(i, u);
        }
        gate.store(args.dgate + r * args.dgateStride + d);
        up.store(args.dup + r * args.dupStride + d);
    }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks) gated_activation_backward(const GatedActivationBackwardArgs<T> args)
{
    if (args.isWide) backward<kVector<T, true>>(args);
    else backward<1>(args);
}
