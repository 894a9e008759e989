using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void GroupedExpertsForward(GroupedExpertsInputs x, Tensor hidden, Tensor y)
    {
        var moe = new ExpertsView(x);
        RequireExperts(nameof(Ops.GroupedExperts), x.Experts, moe.Experts + x.Skipped);
        using var scratch = new CpuScratch(ExpertGroups.Floats(moe));
        var groups = new ExpertGroups(moe, scratch.Data);
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        Tensor rows = Tensor.Empty([groups.Rows, moe.Width], DType.Float32, Device.Cpu), activated = Tensor.Empty([groups.Rows, moe.Hidden], DType.Float32, Device.Cpu);
        Gather(moe, groups, F32(x.X), F32(rows));
        for (long e = 0; e < moe.Experts; e++)
            CpuGemm.Multiply(groups.Count(e), moe.UpRows, moe.Width, groups.Part(e, F32(rows), moe.Width), moe.Up(e).Transposed, F32(hidden) + groups.Begin[e] * moe.UpRows, moe.UpRows);
        Activate(x, hidden.Slice(0, 0, groups.Rows), activated);
        for (long e = 0; e < moe.Experts; e++)
            CpuGemm.Multiply(groups.Count(e), moe.Width, moe.Hidden, groups.Part(e, F32(activated), moe.Hidden), moe.Down(e).Transposed, F32(rows) + groups.Begin[e] * moe.Width, moe.Width);
        For(moe.Tokens, RowGrain(moe.Width), new CombineKernel(moe, groups, F32(rows), F32(x.Weights), F32(y)));
    }

    internal override void GroupedExpertsBackward(GroupedExpertsInputs x, Tensor hidden, Tensor dy, Tensor dX, Tensor dWeights, Tensor dUp, Tensor dDown)
    {
        var moe = new ExpertsView(x);
        using var scratch = new CpuScratch(ExpertGroups.Floats(moe));
        var groups = new ExpertGroups(moe, scratch.Data);
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        Tensor New(long width) => Tensor.Empty([groups.Rows, width], DType.Float32, Device.Cpu);
        Tensor rows = New(moe.Width), activated = New(moe.Hidden), dActivated = New(moe.Hidden), dHidden = New(moe.UpRows), own = hidden.Slice(0, 0, groups.Rows);

        Activate(x, own, activated);
        Gather(moe, groups, F32(dy), F32(rows));
        for (long e = 0; e < moe.Experts; e++)
            CpuGemm.Multiply(groups.Count(e), moe.Hidden, moe.Width, groups.Part(e, F32(rows), moe.Width), moe.Down(e), F32(dActivated) + groups.Begin[e] * moe.Hidden, moe.Hidden);
        // dy·y_e = (dy·down_e)·hidden: the gradient of a weight needs no output of an expert. Then the weight goes onto both sides.
        For(moe.Tokens, RowGrain(moe.Slots * moe.Hidden), new WeighKernel(moe, groups, F32(x.Weights), F32(activated), F32(dActivated), F32(dWeights)));
        for (long e = 0; e < moe.Experts; e++)
            CpuGemm.Multiply(moe.Width, moe.Hidden, groups.Count(e), groups.Part(e, F32(rows), moe.Width).Transposed, groups.Part(e, F32(activated), moe.Hidden), F32(dDown) + e * moe.Width * moe.Hidden, moe.Hidden);

        ActivateBackward(x, own, dActivated, dHidden);
        Gather(moe, groups, F32(x.X), F32(rows));
        for (long e = 0; e < moe.Experts; e++)
            CpuGemm.Multiply(moe.UpRows, moe.Width, groups.Count(e), groups.Part(e, F32(dHidden), moe.UpRows).Transposed, groups.Part(e, F32(rows), moe.Width), F32(dUp) + e * moe.UpRows * moe.Width, moe.Width);
        for (long e = 0; e < moe.Experts; e++)
            CpuGemm.Multiply(groups.Count(e), moe.Width, moe.UpRows, groups.Part(e, F32(dHidden), moe.UpRows), moe.Up(e), F32(rows) + groups.Begin[e] * moe.Width, moe.Width);
        For(moe.Tokens, RowGrain(moe.Width), new CombineKernel(moe, groups, F32(rows), null, F32(dX)));
    }

    private void Activate(GroupedExpertsInputs x, Tensor hidden, Tensor activated)
    {
        if (!x.IsGated) PointwiseForward(x.Function, hidden, activated);
        else GatedActivationForward(x.Function, hidden.Slice(1, 0, activated.Shape[1]), hidden.Slice(1, activated.Shape[1], activated.Shape[1]), activated);
    }

    private void ActivateBackward(GroupedExpertsInputs x, Tensor hidden, Tensor dActivated, Tensor dHidden)
    {
        long width = dActivated.Shape[1];
        if (!x.IsGated) PointwiseBackward(x.Function, hidden, dActivated, dHidden);
        else GatedActivationBackward(x.Function, hidden.Slice(1, 0, width), hidden.Slice(1, width, width), dActivated, dHidden.Slice(1, 0, width), dHidden.Slice(1, width, width));
    }

    private static void Gather(in ExpertsView moe, in ExpertGroups groups, float* x, float* rows) =>
        For(groups.Rows, RowGrain(moe.Width), new GatherKernel(groups.Tokens, moe.Width, x, rows));

    /// <summary>Sizes and addresses of one call.</summary>
    private readonly struct ExpertsView(GroupedExpertsInputs x)
    {
        public readonly long Tokens = x.Experts.Shape[0], Slots = x.Experts.Shape[1], Experts = x.Up.Shape[0], UpRows = x.Up.Shape[1], Width = x.Up.Shape[2], Hidden = x.Down.Shape[2];
        public readonly int* Chosen = (int*)x.Experts.Address;
        private readonly byte* _up = (byte*)x.Up.Address, _down = (byte*)x.Down.Address;
        private readonly DType _upType = x.Up.DType, _downType = x.Down.DType;

        /// <summary>[2·hidden or hidden, D].</summary>
        public CpuMatrix Up(long e) => new(_up + e * UpRows * Width * _upType.Size, _upType, Width, 1);

        /// <summary>[D, hidden].</summary>
        public CpuMatrix Down(long e) => new(_down + e * Width * Hidden * _downType.Size, _downType, Hidden, 1);
    }

    /// <summary>Tokens and slots sorted by expert, tokens in order within one: a counting sort.</summary>
    private readonly struct ExpertGroups
    {
        public ExpertGroups(in ExpertsView moe, float* scratch)
        {
            long pairs = moe.Tokens * moe.Slots;
            Begin = (long*)scratch;
            Tokens = Begin + moe.Experts + 1;
            Places = Tokens + pairs;
            new Span<long>(Begin, checked((int)(moe.Experts + 1))).Clear();
            for (long i = 0; i < pairs; i++)
                if (moe.Chosen[i] < moe.Experts) Begin[moe.Chosen[i] + 1]++;
            for (long e = 0; e < moe.Experts; e++) Begin[e + 1] += Begin[e];
            Rows = Begin[moe.Experts];
            for (long i = 0; i < pairs; i++)
            {
                Places[i] = moe.Chosen[i] < moe.Experts ? Begin[moe.Chosen[i]]++ : -1;
                if (Places[i] >= 0) Tokens[Places[i]] = i / moe.Slots;
            }
            for (long e = moe.Experts; e > 0; e--) Begin[e] = Begin[e - 1];    // filling moved every begin to the next
            Begin[0] = 0;
        }

        public static long Floats(in ExpertsView moe) => 2 * (moe.Experts + 1 + 2 * moe.Tokens * moe.Slots);

        /// <summary>The first row of each expert, and behind the last; the token of each row; the row of each token and slot, -1 for none.</summary>
        public readonly long* Begin, Tokens, Places;

        public readonly long Rows;

        public long Count(long e) => Begin[e + 1] - Begin[e];

        public CpuMatrix Part(long e, float* rows, long width) => new(rows + Begin[e] * width, width, 1);
    }

    private readonly struct GatherKernel(long* tokens, long width, float* x, float* rows) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long row = begin; row < end; row++) Buffer.MemoryCopy(x + tokens[row] * width, rows + row * width, width * sizeof(float), width * sizeof(float));
        }
    }

    /// <summary>y = Σ over the slots of weight·row, or of the row alone.</summary>
    private readonly struct CombineKernel(ExpertsView moe, ExpertGroups groups, float* rows, float* weights, float* y) : IKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long token = begin; token < end; token++)
            {
                float* to = y + token * moe.Width;
                for (long i = 0; i < moe.Width; i += T.Width)
                {
                    T sum = T.Zero;
                    for (long pair = token * moe.Slots; pair < (token + 1) * moe.Slots; pair++)
                    {
                        if (groups.Places[pair] < 0) continue;
                        T value = T.LoadUpTo(rows + groups.Places[pair] * moe.Width + i, moe.Width - i);
                        sum = weights == null ? sum + value : T.MulAdd(T.Broadcast(weights[pair]), value, sum);
                    }
                    sum.StoreUpTo(to + i, moe.Width - i);
                }
            }
        }
    }

    /// <summary>d weight = d activated · activated; then both are multiplied by the weight.</summary>
    private readonly struct WeighKernel(ExpertsView moe, ExpertGroups groups, float* weights, float* activated, float* dActivated, float* dWeights) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long pair = begin * moe.Slots; pair < end * moe.Slots; pair++)
            {
                dWeights[pair] = 0;
                if (groups.Places[pair] < 0) continue;
                float* value = activated + groups.Places[pair] * moe.Hidden, d = dActivated + groups.Places[pair] * moe.Hidden;
                dWeights[pair] = CpuTiles.Dot<T>(value, d, moe.Hidden);
                CpuTiles.Scale<T>(value, weights[pair], value, moe.Hidden);
                CpuTiles.Scale<T>(d, weights[pair], d, moe.Hidden);
            }
        }
    }
}
