namespace ZEngine.Emulator.Execution;

/// <summary>The special registers that do not change while a block runs.</summary>
internal static unsafe class SpecialRegisters
{
    /// <summary>Whether a name is one of them, and whether it is 64 bits wide.</summary>
    public static bool IsFixed(string name) => name is
        "%tid.x" or "%tid.y" or "%tid.z" or "%ntid.x" or "%ntid.y" or "%ntid.z" or "%ctaid.x" or "%ctaid.y" or "%ctaid.z"
        or "%nctaid.x" or "%nctaid.y" or "%nctaid.z" or "%laneid" or "%warpid" or "%nwarpid" or "%smid" or "%nsmid" or "%gridid"
        or "%lanemask_eq" or "%lanemask_lt" or "%lanemask_le" or "%lanemask_gt" or "%lanemask_ge"
        or "%dynamic_smem_size" or "%total_smem_size"
        or "%cluster_ctarank" or "%cluster_nctarank" or "%clusterid.x" or "%nclusterid.x" or "%cluster_ctaid.x" or "%cluster_nctaid.x";

    /// <summary>Whether a name is read anew every time.</summary>
    public static bool IsClock(string name) => name is "%clock" or "%clock64" or "%clock_hi" or "%globaltimer" or "%globaltimer_lo" or "%globaltimer_hi";

    public static void Fill(Warp warp, (int X, int Y, int Z) block)
    {
        Interop.LaunchConfiguration c = warp.Launch.Configuration;
        foreach ((int slot, string name) in warp.Launch.Program.Specials)
        {
            var lanes = (uint*)(warp.Registers + slot);
            for (int lane = 0; lane < 32; lane++)
            {
                (int x, int y, int z) = warp.Block.ThreadCoordinates(warp.Index * 32 + lane);
                uint bit = 1u << lane;
                lanes[lane] = name switch
                {
                    "%tid.x" => (uint)x, "%tid.y" => (uint)y, "%tid.z" => (uint)z,
                    "%ntid.x" => (uint)c.Block.X, "%ntid.y" => (uint)c.Block.Y, "%ntid.z" => (uint)c.Block.Z,
                    "%ctaid.x" => (uint)block.X, "%ctaid.y" => (uint)block.Y, "%ctaid.z" => (uint)block.Z,
                    "%nctaid.x" => (uint)c.Grid.X, "%nctaid.y" => (uint)c.Grid.Y, "%nctaid.z" => (uint)c.Grid.Z,
                    "%laneid" => (uint)lane, "%warpid" => (uint)warp.Index, "%nwarpid" => 64,
                    "%smid" => (uint)(warp.Block.Linear % warp.Launch.Multiprocessors), "%nsmid" => (uint)warp.Launch.Multiprocessors, "%gridid" => 1,
                    "%lanemask_eq" => bit, "%lanemask_lt" => bit - 1, "%lanemask_le" => bit - 1 | bit,
                    "%lanemask_gt" => ~(bit - 1 | bit), "%lanemask_ge" => ~(bit - 1),
                    "%dynamic_smem_size" => (uint)c.DynamicSharedBytes, "%total_smem_size" => warp.SharedBytes,
                    "%cluster_ctarank" or "%cluster_ctaid.x" => 0, "%cluster_nctarank" or "%cluster_nctaid.x" => 1,
                    "%clusterid.x" => (uint)block.X, "%nclusterid.x" => (uint)c.Grid.X,
                    _ => throw new InvalidOperationException($"special register {name} has no value"),
                };
            }
        }
    }
}
