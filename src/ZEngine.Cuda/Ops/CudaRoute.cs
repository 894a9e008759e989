using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string RouteFile = "Route.cu";

    /// <summary>Blocks of the forward at most; they follow from the shape alone, so that every device adds in the same order.</summary>
    private const long RouteBlocks = 128;

    /// <summary>Warps of a block at most; each takes a token at a time.</summary>
    private const int RouteWarps = 8;

    /// <summary>Shared memory that a block has on every device; more warps than fit are not taken.</summary>
    private const int RouteSharedBytes = 96 << 10;

    /// <summary>Mirrors RouteArgs in kernels/Route.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct RouteArgs
    {
        public ulong Logits, Bias, Experts, Weights, Partial, Load, DWeights, DAuxLoss, DZLoss, DLogits;
        public long Tokens, TokensPerBlock;
        public int E, K, IsGiven, IsSigmoid, IsNormalized;
        public float Scale;
    }

    /// <summary>Mirrors RouteLossesArgs in kernels/Route.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct RouteLossesArgs
    {
        public ulong Partial, Load, AuxLoss, ZLoss;
        public long Tokens;
        public int E, P;
    }

    internal override void RouteForward(RouteInputs x, Routing routing)
    {
        RouteArgs args = RouteArgsOf(x, routing);
        int warps = RouteWarpsFor(20L * args.E + 8);
        args.TokensPerBlock = Math.Max(warps, (args.Tokens + RouteBlocks - 1) / RouteBlocks);
        int blocks = Blocks("Route", args.Tokens, args.TokensPerBlock);
        using Tensor partial = Tensor.Empty([Math.Max(1, blocks), 2L * args.E + 1, 2], DType.Float32, x.Logits.Device);        // doubles
        args.Partial = Pointer(partial);
        Kernel(RouteFile, $"route_forward<{x.Logits.DType}>").Launch(blocks, 32 * warps, SharedRow("Route", warps * (20L * args.E + 8)), args);
        Kernel(RouteFile, $"route_losses").Launch(1, ElementThreads, 0, new RouteLossesArgs
        {
            Partial = args.Partial, Load = Pointer(routing.Load), AuxLoss = Pointer(routing.AuxLoss), ZLoss = Pointer(routing.ZLoss), Tokens = args.Tokens, E = args.E, P = blocks,
        });
    }

    internal override void RouteBackward(RouteInputs x, Routing routing, Tensor? dWeights, Tensor? dAuxLoss, Tensor? dZLoss, Tensor dLogits)
    {
        RouteArgs args = RouteArgsOf(x, routing) with
        {
            Load = Pointer(routing.Load), DWeights = Pointer(dWeights), DAuxLoss = Pointer(dAuxLoss), DZLoss = Pointer(dZLoss), DLogits = Pointer(dLogits),
        };
        int warps = RouteWarpsFor(16L * args.E);
        Kernel(RouteFile, $"route_backward<{x.Logits.DType}>").Launch(Blocks("Route", args.Tokens, warps), 32 * warps, SharedRow("Route", warps * 16L * args.E), args);
    }

    private static RouteArgs RouteArgsOf(RouteInputs x, Routing routing) => new()
    {
        Logits = Pointer(x.Logits), Bias = Pointer(x.SelectionBias), Experts = Pointer(routing.Experts), Weights = Pointer(routing.Weights), Tokens = routing.Experts.Shape[0],
        E = Size32("Route", "E", x.Logits.Shape[^1]), K = Size32("Route", "TopK", x.Options.TopK), IsGiven = x.Given is null ? 0 : 1,
        IsSigmoid = x.Options.Score == RouterScore.Sigmoid ? 1 : 0, IsNormalized = x.Options.Normalize ? 1 : 0, Scale = x.Options.Scale,
    };

    private static int RouteWarpsFor(long bytesPerWarp)
    {
        int warps = RouteWarps;
        while (warps > 1 && warps * bytesPerWarp > RouteSharedBytes) warps /= 2;
        return warps;
    }
}
