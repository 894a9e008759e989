using ZEngine.Cuda;
using ZEngine.Emulator;

namespace ZEngine.Bench;

/// <summary>A size on which a layer's counts depend by a straight line: two that are counted, the lower may be 0 where nothing costs nothing, and that of a real layer.</summary>
internal readonly record struct CostAxis(string Letter, long Low, long High, long Layer);

/// <summary>What one pass of a layer may take.</summary>
/// <param name="Name">The pass.</param>
/// <param name="LeastSeconds">What the definition asks for, at the rates of <see cref="GpuRates.H200"/>.</param>
/// <param name="Gate">The most that its estimated time may be of that, where KERNELS.md has one.</param>
/// <param name="SerialSteps">How often in a row a block waits for the word of another.</param>
/// <param name="Held">What it is held to where it does not meet the gate; bench/README.md says why it does not.</param>
internal readonly record struct LayerPass(string Name, double LeastSeconds, double Gate = double.PositiveInfinity, double SerialSteps = 0, double? Held = null)
{
    /// <summary>The most that the ratio may be.</summary>
    public double Most => Held ?? Gate;

    public double SecondsOf(LaunchCost cost) => GpuRates.H200.Seconds(cost, SerialSteps);

    public double RatioOf(LaunchCost cost) => SecondsOf(cost) / LeastSeconds;
}

/// <summary>Counts the launches of passes.</summary>
internal sealed class PassCounter(CudaDevice device, EmulatedCudaDriver driver)
{
    private int _before;

    public CudaDevice Device => device;

    public List<LaunchCost> Costs { get; } = [];

    /// <summary>What was launched before is no part of a pass.</summary>
    public void Skip()
    {
        device.Synchronize();
        _before = driver.Profiles.Count;
    }

    /// <summary>What was launched since is one.</summary>
    public void Take()
    {
        device.Synchronize();
        Costs.Add(driver.Profiles.Skip(_before).Select(LaunchCost.Of).Aggregate((a, b) => a + b));
        Skip();
    }
}

/// <summary>
/// A layer too large to run on the emulator: its launches are counted at small sizes, on a device of so few multiprocessors that the plans are the layer's, and the counts go on to its
/// sizes by a straight line along each. Integers all, the same on every machine.
/// </summary>
/// <param name="Op">The op.</param>
/// <param name="Axes">Sizes that grow.</param>
/// <param name="Fixed">Those that do not, in words.</param>
/// <param name="Beyond">Small sizes, none of them on the axes' ends, at which the line must hold.</param>
/// <param name="Multiprocessors">Of the device that is counted on, for sizes.</param>
/// <param name="Passes">The passes, in the order in which <paramref name="Run"/> gives them.</param>
/// <param name="Run">Runs the passes at sizes, and has each counted.</param>
internal sealed record LayerCost(string Op, CostAxis[] Axes, string Fixed, long[] Beyond, Func<long[], int> Multiprocessors, LayerPass[] Passes, Action<PassCounter, long[]> Run)
{
    private const int Architecture = 90;

    /// <summary>More instructions than a block has: each runs to its end before the next, and none looks twice at whose turn it is.</summary>
    private const long WholeBlock = 100_000_000;

    public override string ToString() => $"{Op} {Sizes}";

    public string Sizes => $"{string.Join(" ", Axes.Select(axis => $"{axis.Letter} {axis.Layer}"))} {Fixed}";

    public long[] Layer => [.. Axes.Select(axis => axis.Layer)];

    /// <summary>The costs of the passes at sizes that fit the emulator.</summary>
    public LaunchCost[] Count(long[] sizes, Func<EmulatedCudaDriver, CudaDevice> open)
    {
        using var driver = new EmulatedCudaDriver(new EmulatorOptions { Architecture = Architecture, Multiprocessors = Multiprocessors(sizes), Checks = EmulatorChecks.Counters | EmulatorChecks.Footprints, BlockInstructions = WholeBlock });
        using CudaDevice device = open(driver);
        using TensorScope scope = TensorScope.Enter();
        var counter = new PassCounter(device, driver);
        Run(counter, sizes);
        return [.. counter.Costs];
    }

    /// <summary>The costs at any sizes, from those at the axes' ends.</summary>
    public LaunchCost[] Extrapolate(Func<EmulatedCudaDriver, CudaDevice> open, params ReadOnlySpan<long[]> places)
    {
        var sums = new LaunchCost[places.Length * Passes.Length];
        var sizes = new long[Axes.Length];
        double[] launches = new double[Passes.Length];
        for (int corner = 0; corner < 1 << Axes.Length; corner++)
        {
            for (int a = 0; a < sizes.Length; a++) sizes[a] = (corner >> a & 1) == 0 ? Axes[a].Low : Axes[a].High;
            if (sizes.Contains(0)) continue;
            LaunchCost[] costs = Count(sizes, open);
            for (int p = 0; p < costs.Length; p++)
            {
                if (launches[p] != 0 && launches[p] != costs[p].Launches) throw new InvalidOperationException($"{this}: {costs[p].Launches} launches at {string.Join(" ", sizes)}, elsewhere {launches[p]}.");
                launches[p] = costs[p].Launches;
                for (int k = 0; k < places.Length; k++) sums[k * Passes.Length + p] += costs[p] * Weight(corner, places[k]);
            }
        }
        for (int i = 0; i < sums.Length; i++) sums[i] = sums[i] with { Launches = launches[i % Passes.Length] };
        return sums;
    }

    private double Weight(int corner, long[] place)
    {
        double weight = 1;
        for (int a = 0; a < Axes.Length; a++)
        {
            CostAxis axis = Axes[a];
            double high = (place[a] - axis.Low) / (double)(axis.High - axis.Low);
            weight *= (corner >> a & 1) == 0 ? 1 - high : high;
        }
        return weight;
    }
}
