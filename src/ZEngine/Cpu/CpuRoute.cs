namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    // Only so that weights whose scores all underflow are 0 rather than 0 / 0.
    private const double LeastScoreSum = 1e-20;

    internal override void RouteForward(RouteInputs x, Routing routing)
    {
        var route = new RouteView(x, routing);
        if (x.Given is not null) RequireExperts(nameof(Ops.Route), x.Given, route.Experts);
        long block = WeightBlock(route.Tokens), blocks = (route.Tokens + block - 1) / block, width = 2 * route.Experts + 1;
        using var scratch = new CpuScratch(2 * blocks * width);
        var sums = (double*)scratch.Data;                      // per block: Σ score of each expert, tokens of each expert, Σ lse²
        CpuThreads.For(blocks, 1, new RouteForwardJob(route, F32(x.SelectionBias), x.Given is null, F32(routing.Weights), sums, block));

        double balance = 0, squares = 0, tokens = Math.Max(1, route.Tokens);
        for (long e = 0; e < route.Experts; e++)
        {
            double score = 0, count = 0;
            for (long i = 0; i < blocks; i++) (score, count) = (score + sums[i * width + e], count + sums[i * width + route.Experts + e]);
            F32(routing.Load)[e] = (float)(count / tokens);
            balance += count / tokens * (score / tokens);
        }
        for (long i = 0; i < blocks; i++) squares += sums[i * width + 2 * route.Experts];
        *F32(routing.AuxLoss) = (float)(route.Experts * balance);
        *F32(routing.ZLoss) = (float)(squares / tokens);
    }

    internal override void RouteBackward(RouteInputs x, Routing routing, Tensor? dWeights, Tensor? dAuxLoss, Tensor? dZLoss, Tensor dLogits)
    {
        var route = new RouteView(x, routing);
        double tokens = Math.Max(1, route.Tokens), dAux = dAuxLoss is null ? 0 : *F32(dAuxLoss) * route.Experts / tokens, dZ = dZLoss is null ? 0 : *F32(dZLoss) * 2 / tokens;
        CpuThreads.For(route.Tokens, RowGrain(16 * route.Experts), new RouteBackwardJob(route, F32(dWeights), F32(routing.Load), dAux, dZ, F32(dLogits)));
    }

    private static void RequireExperts(string op, Tensor experts, long count)
    {
        var values = new ReadOnlySpan<int>((int*)experts.Address, checked((int)experts.Count));
        int at = values.IndexOfAnyExceptInRange(0, checked((int)count) - 1);
        if (at >= 0) throw new ArgumentException($"{op}: expert {at} of {Tensor.ShapeText(experts.Shape)} is {values[at]}, but there are {count} experts.");
    }

    /// <summary>Sizes and addresses; scores are worked out in double, for the gradient again from the logits: a weight near 1 keeps its distance to 1.</summary>
    private readonly struct RouteView(RouteInputs x, Routing routing)
    {
        public readonly long Experts = x.Logits.Shape[^1], Tokens = routing.Experts.Shape[0], Slots = routing.Experts.Shape[1];
        public readonly int* Chosen = (int*)routing.Experts.Address;
        public readonly bool Normalizes = x.Options.Normalize, IsSigmoid = x.Options.Score == RouterScore.Sigmoid;
        public readonly double Scale = x.Options.Scale;
        private readonly float* _logits = F32(x.Logits);

        /// <summary>Writes the scores and the softmax of a token; returns the log-sum-exp.</summary>
        public double Scores(long token, double* scores, double* softmax)
        {
            float* logits = _logits + token * Experts;
            double max = logits[0], sum = 0;
            for (long e = 1; e < Experts; e++) max = Math.Max(max, logits[e]);
            for (long e = 0; e < Experts; e++) sum += softmax[e] = Math.Exp(logits[e] - max);
            for (long e = 0; e < Experts; e++)
            {
                softmax[e] /= sum;
                scores[e] = IsSigmoid ? 1 / (1 + Math.Exp(-(double)logits[e])) : softmax[e];
            }
            return max + Math.Log(sum);
        }

        /// <summary>Σ of the scores of a token's experts, or 1 where they are not normalised.</summary>
        public double Divisor(long token, double* scores)
        {
            if (!Normalizes) return 1;
            double sum = LeastScoreSum;
            for (long k = 0; k < Slots; k++) sum += scores[Chosen[token * Slots + k]];
            return sum;
        }
    }

    private readonly struct RouteForwardJob(RouteView route, float* bias, bool isChoosing, float* weights, double* sums, long block) : IParallelJob
    {
        public void Run(long begin, long end)
        {
            using var scratch = new CpuScratch(4 * route.Experts);
            double* scores = (double*)scratch.Data, softmax = scores + route.Experts;
            for (long i = begin; i < end; i++)
            {
                double* own = sums + i * (2 * route.Experts + 1);
                new Span<double>(own, checked((int)(2 * route.Experts + 1))).Clear();
                for (long token = i * block; token < Math.Min(route.Tokens, (i + 1) * block); token++)
                {
                    double lse = route.Scores(token, scores, softmax);
                    own[2 * route.Experts] += lse * lse;
                    for (long e = 0; e < route.Experts; e++) own[e] += scores[e];
                    if (isChoosing) Choose(token, scores);
                    double divisor = route.Divisor(token, scores);
                    for (long k = 0; k < route.Slots; k++)
                    {
                        int expert = route.Chosen[token * route.Slots + k];
                        weights[token * route.Slots + k] = (float)(scores[expert] / divisor * route.Scale);
                        own[route.Experts + expert]++;
                    }
                }
            }
        }

        /// <summary>The experts of the largest scores, as they are in Float32; of equal ones the lower.</summary>
        private void Choose(long token, double* scores)
        {
            var chosen = new Span<int>(route.Chosen + token * route.Slots, checked((int)route.Slots));
            for (int k = 0; k < chosen.Length; k++)
            {
                int best = -1;
                float most = 0;
                for (int e = 0; e < route.Experts; e++)
                {
                    float score = (float)scores[e] + (bias == null ? 0 : bias[e]);
                    if ((best >= 0 && !(score > most)) || chosen[..k].Contains(e)) continue;
                    (best, most) = (e, score);
                }
                chosen[k] = best;
            }
        }
    }

    private readonly struct RouteBackwardJob(RouteView route, float* dWeights, float* load, double dAux, double dZ, float* dLogits) : IParallelJob
    {
        public void Run(long begin, long end)
        {
            using var scratch = new CpuScratch(6 * route.Experts);
            double* scores = (double*)scratch.Data, softmax = scores + route.Experts, dScores = softmax + route.Experts;
            for (long token = begin; token < end; token++)
            {
                double lse = route.Scores(token, scores, softmax), dot = 0;
                for (long e = 0; e < route.Experts; e++) dScores[e] = dAux * load[e];
                if (dWeights != null) AddWeights(token, scores, dScores);
                if (!route.IsSigmoid)
                    for (long e = 0; e < route.Experts; e++) dot += dScores[e] * scores[e];
                float* to = dLogits + token * route.Experts;
                for (long e = 0; e < route.Experts; e++)
                {
                    double own = route.IsSigmoid ? dScores[e] * scores[e] * (1 - scores[e]) : (dScores[e] - dot) * scores[e];
                    to[e] = (float)(own + dZ * lse * softmax[e]);
                }
            }
        }

        private void AddWeights(long token, double* scores, double* dScores)
        {
            double divisor = route.Divisor(token, scores), shared = 0;
            float* d = dWeights + token * route.Slots;
            int* chosen = route.Chosen + token * route.Slots;
            if (route.Normalizes)
                for (long k = 0; k < route.Slots; k++) shared += d[k] * scores[chosen[k]] / divisor;
            for (long k = 0; k < route.Slots; k++) dScores[chosen[k]] += (d[k] - shared) / divisor * route.Scale;
        }
    }
}
