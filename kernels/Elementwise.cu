// Elementwise.cu
//
// Computes   y[i] = f(x[i]), dx[i] = dy[i]·f'(x[i]), y[i] = x[i]·factor; y[i] = f(a[i], b[i]) with a and b broadcast; for a maximum or minimum
//            da[i] = dy[i] where a was taken (a where they are equal), else 0, and db the rest.
// Source     the functions as src/ZEngine/Ops/Elementwise.cs defines them; gelu: Hendrycks and Gimpel 2016, arXiv:1606.08415.
// Method     each thread takes V neighbouring elements and goes on by the size of the grid. Which function it is, is an argument, so that one
//            instance serves all: the loop waits for memory. Broadcast operands are found by dividing the index through the sizes.
// Layout     x, y, dy, dx [n], dense; a, b of the shape of y with strides that may be 0.
// Launch     grid up to 8 blocks a multiprocessor, block 256, and as many fit where one tensor is read. No shared memory.
// Traffic    forward reads n, writes n; backward reads 2·n, writes n; scale reads n, writes n; pairwise reads 2·n (a broadcast operand from the
//            cache), writes n; select reads 3·n, writes 2·n elements.
// Precision  loads T, computes f32, stores T. Deterministic.
// Limits     at most 6 axes. Accesses are of 16 bytes where every address is a multiple of 16 and the tensors are dense, else of one element.
// Variants   pointwise_forward<{f32|bf16|f16}>; pointwise_backward<{f32|bf16|f16}>; scale<{f32|bf16|f16}>; pairwise_forward<{f32|bf16|f16}>;
//            select_backward<{f32|bf16|f16}>
#include "common/Copy.cuh"
#include "common/Pointwise.cuh"
#include "common/Strided.cuh"

constexpr int kThreads = 256;
constexpr int kBlocks = 8;                                    // of a multiprocessor: all its threads, where each has but one access under way

template <typename T>
struct PointwiseArgs                                          // mirrored in CudaElementwise.cs, field for field
{
    const T* x; const T* dy; T* y;
    i64 n;
    i32 function, isWide;
    f32 factor;
};

// Calls body(start, length of the group) for groups of V elements where accesses may be wide, then element by element for the rest.
template <int V, typename Body>
__device__ inline void for_each(i64 n, int isWide, Body body)
{
    const i64 thread = (i64)blockIdx.x * kThreads + threadIdx.x, threads = (i64)gridDim.x * kThreads;
    const i64 groups = isWide ? n / V : 0;
    for (i64 group = thread; group < groups; group += threads) body.template at<V>(group * V);
    for (i64 i = groups * V + thread; i < n; i += threads) body.template at<1>(i);
}

template <typename T>
struct Forward
{
    const PointwiseArgs<T>& args;

    template <int V> __device__ void at(i64 i) const
    {
        f32 x[V];
        load<V>(x, args.x + i);
        #pragma unroll
        for (int v = 0; v < V; v++) x[v] = pointwise(args.function, x[v]);
        store<V>(args.y + i, x);
    }
};

template <typename T>
struct Backward
{
    const PointwiseArgs<T>& args;

    template <int V> __device__ void at(i64 i) const
    {
        f32 x[V], dy[V];
        load<V>(x, args.x + i);
        load<V>(dy, args.dy + i);
        #pragma unroll
        for (int v = 0; v < V; v++) x[v] = dy[v] * pointwise_slope(args.function, x[v]);
        store<V>(args.y + i, x);
    }
};

template <typename T>
struct Scale
{
    const PointwiseArgs<T>& args;

    template <int V> __device__ void at(i64 i) const
    {
        f32 x[V];
        load<V>(x, args.x + i);
        #pragma unroll
        for (int v = 0; v < V; v++) x[v] *= args.factor;
        store<V>(args.y + i, x);
    }
};

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks) pointwise_forward(const PointwiseArgs<T> args) { for_each<16 / sizeof(T)>(args.n, args.isWide, Forward<T>{args}); }

template <typename T>
__global__ void __launch_bounds__(kThreads) pointwise_backward(const PointwiseArgs<T> args) { for_each<16 / sizeof(T)>(args.n, args.isWide, Backward<T>{args}); }

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks) scale(const PointwiseArgs<T> args) { for_each<16 / sizeof(T)>(args.n, args.isWide, Scale<T>{args}); }

enum Pair { kAdd, kSubtract, kMultiply, kDivide, kMaximum, kMinimum };

// NaN of either operand comes through.
__device__ inline f32 pairwise(int function, f32 a, f32 b)
{
    switch (function)
    {
        case kAdd: return a + b;
        case kSubtract: return a - b;
        case kMultiply: return a * b;
        case kDivide: return a / b;
        case kMaximum: return a > b || a != a ? a : b;
        default: return a < b || a != a ? a : b;
    }
}

template <typename T>
struct PairwiseArgs                                           // mirrored in CudaElementwise.cs, field for field
{
    const T* a; const T* b; const T* dy; T* y; T* da; T* db;
    i64 n;
    StridedShape aShape, bShape;
    i32 function, isDense, isWide;
};

template <typename T>
struct Pairwise
{
    const PairwiseArgs<T>& args;

    template <int V> __device__ void at(i64 i) const
    {
        f32 a[V], b[V];
        load<V>(a, args.a + (args.isDense ? i : args.aShape.offset(i)));
        load<V>(b, args.b + (args.isDense ? i : args.bShape.offset(i)));
        #pragma unroll
        for (int v = 0; v < V; v++) a[v] = pairwise(args.function, a[v], b[v]);
        store<V>(args.y + i, a);
    }
};

template <typename T>
__global__ void __launch_bounds__(kThreads) pairwise_forward(const PairwiseArgs<T> args) { for_each<16 / sizeof(T)>(args.n, args.isWide, Pairwise<T>{args}); }

template <typename T>
__global__ void __launch_bounds__(kThreads) select_backward(const PairwiseArgs<T> args)
{
    const i64 threads = (i64)gridDim.x * kThreads;
    for (i64 i = (i64)blockIdx.x * kThreads + threadIdx.x; i < args.n; i += threads)
    {
        const f32 a = to_f32(args.a[args.aShape.offset(i)]), b = to_f32(args.b[args.bShape.offset(i)]), dy = to_f32(args.dy[i]);
        const bool takesB = args.function == kMaximum ? b > a : b < a;
        args.da[i] = from_f32<T>(takesB ? 0.0f : dy);
        args.db[i] = from_f32<T>(takesB ? dy : 0.0f);
    }
}
