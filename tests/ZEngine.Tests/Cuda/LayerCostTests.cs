using ZEngine.Bench;
using ZEngine.Emulator;

namespace ZEngine.Tests.Cuda;

/// <summary>The estimated times of layers against KERNELS.md's gates, from counts of the emulator.</summary>
public sealed class LayerCostTests
{
    public static TheoryData<string> Layers => [.. LayerCases.All.Select(layer => layer.ToString())];

    /// <summary>Counts at small sizes go on by a straight line along each size, which one more run beyond them shows; where it ends, the time is near the least.</summary>
    [Theory, MemberData(nameof(Layers))]
    public void Estimates_meet_the_gates(string name)
    {
        LayerCost layer = LayerCases.All.Single(layer => layer.ToString() == name);
        LaunchCost[] costs = layer.Extrapolate(driver => Devices.OpenEmulated(driver), layer.Layer, layer.Beyond), beyond = layer.Count(layer.Beyond, driver => Devices.OpenEmulated(driver));
        for (int p = 0; p < layer.Passes.Length; p++)
        {
            LayerPass pass = layer.Passes[p];
            TestContext.Current.SendDiagnosticMessage(LayerTable.Row(layer, pass, costs[p]));
            Same(costs[layer.Passes.Length + p], beyond[p], $"{name}, {pass.Name}");
            double ratio = pass.RatioOf(costs[p]);
            Assert.True(ratio <= pass.Most, $"{name}, {pass.Name}: {ratio:F3} of the least time, at most {pass.Most:F2}");
            Assert.True(pass.Held is null || pass.Held > pass.Gate, $"{name}, {pass.Name} is held to less than the gate");
        }
    }

    // Partial sums are added in rounds of rows, and rounds are whole: a hundredth. An L1 cache has more of a small layer: a tenth.
    private static void Same(LaunchCost line, LaunchCost counted, string where)
    {
        foreach ((string kind, double a, double b) in (ReadOnlySpan<(string, double, double)>)
        [
            ("memory", line.MemoryBytes, counted.MemoryBytes), ("L2", line.L2Bytes, counted.L2Bytes), ("wavefronts", line.Wavefronts, counted.Wavefronts), ("special", line.Specials, counted.Specials),
            ("floats", line.Floats, counted.Floats), ("instructions", line.Instructions, counted.Instructions), ("tensor", line.MatrixFlops, counted.MatrixFlops), ("launches", line.Launches, counted.Launches),
        ])
            Assert.True(Math.Abs(a - b) <= (kind == "L2" ? 0.1 : 0.01) * Math.Max(Math.Abs(a), Math.Abs(b)), $"{where}: {kind} by the line {a}, counted {b}");
    }

    [Fact]
    public void The_time_is_that_of_the_busiest_unit()
    {
        GpuRates gpu = GpuRates.H200;
        LaunchCost cost = new(4.3e6, 5.5e5, 1e3, 3.9e5, 2.96e5, 1e3, 3.7e6, 2);
        Assert.Equal(("memory", 1e-6), gpu.Busiest(cost));
        Assert.Equal(1e-6 + 2 * 3e-6 + 5e-6, gpu.Seconds(cost, 5), 1e-15);
        Assert.Equal("tensor cores", gpu.Busiest(cost with { MatrixFlops = 3.7e10 }).Unit);
        Assert.Equal(2e-6, gpu.LeastSeconds(4.3e6, 2 * 7.9e8, 1, 1), 1e-15);
        Assert.Equal(cost + cost, cost * 2);
    }
}
