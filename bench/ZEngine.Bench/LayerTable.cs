using System.Globalization;
using ZEngine.Cuda;
using ZEngine.Emulator;

namespace ZEngine.Bench;

/// <summary>The estimated times of layers beside the least.</summary>
internal static class LayerTable
{
    public const string Head = """
        | op | sizes, BFloat16 | pass | launches | memory µs | L2 | shared | special | floats | issue | tensor | in a row | estimate µs | by | least µs | ratio | gate |
        |---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|--:|--:|--:|
        """;

    public static void Run(string? filter)
    {
        Console.WriteLine(Head);
        var widths = new List<string>();
        foreach (LayerCost layer in LayerCases.Shown)
        {
            if (filter is not null && !layer.ToString().Contains(filter, StringComparison.OrdinalIgnoreCase)) continue;
            LaunchCost[] costs = layer.Extrapolate(driver => CudaDevice.Open(0, driver), layer.Layer);
            for (int p = 0; p < costs.Length; p++)
            {
                Console.WriteLine(Row(layer, layer.Passes[p], costs[p]));
                (double wide, double passes) = costs[p].Widths;
                widths.Add(string.Create(CultureInfo.InvariantCulture, $"| {layer.Op} | {layer.Sizes} | {layer.Passes[p].Name} | {wide:F2} | {passes:F2} |"));
            }
        }
        Console.WriteLine("| op | sizes, BFloat16 | pass | bytes by 16 | shared wavefronts / ideal |\n|---|---|---|--:|--:|");
        foreach (string row in widths) Console.WriteLine(row);
    }

    public static string Row(LayerCost layer, LayerPass pass, LaunchCost cost)
    {
        GpuRates gpu = GpuRates.H200;
        double[] each = [cost.MemoryBytes / gpu.MemoryBytes, cost.L2Bytes / gpu.L2Bytes, cost.Wavefronts / gpu.Wavefronts, cost.Specials / gpu.Specials, cost.Floats / gpu.Floats, cost.Instructions / gpu.Instructions, cost.MatrixFlops / gpu.MatrixFlops];
        return string.Create(CultureInfo.InvariantCulture,
            $"| {layer.Op} | {layer.Sizes} | {pass.Name} | {cost.Launches} | {string.Join(" | ", each.Select(seconds => Micro(seconds)))} | {pass.SerialSteps} | {Micro(pass.SecondsOf(cost))} | {gpu.Busiest(cost).Unit} | {Micro(pass.LeastSeconds)} | {pass.RatioOf(cost):F2} | {(double.IsFinite(pass.Gate) ? pass.Gate.ToString("F2", CultureInfo.InvariantCulture) : "")} |");
    }

    private static string Micro(double seconds) => (1e6 * seconds).ToString("F0", CultureInfo.InvariantCulture);
}
