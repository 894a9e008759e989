using ZEngine.Emulator;

namespace ZEngine.Tests.Emulator.Scenarios;

/// <summary>A scan whose sequences have several tiles and intervals, and whose states fill more than one band or one in part, against the CPU.</summary>
internal abstract class SelectiveScanScenario(bool isBackward, params (int Length, int Channels, int States, bool HasGate)[] sizes) : KernelScenario
{
    private readonly Lazy<float[][]>[] _want = [.. sizes.Select(size => new Lazy<float[][]>(() => Results(Device.Cpu, isBackward, size)))];

    public override void Run(EmulatorOptions options)
    {
        for (int i = 0; i < sizes.Length; i++) Run(options, _want[i].Value, sizes[i]);
    }

    private void Run(EmulatorOptions options, float[][] want, (int Length, int Channels, int States, bool HasGate) size)
    {
        using var driver = new EmulatedCudaDriver(options);
        using Device device = Devices.OpenEmulated(driver);
        float[][] got = Results(device, isBackward, size);
        for (int k = 0; k < want.Length; k++)
        {
            double scale = Math.Sqrt(want[k].Average(x => (double)x * x));
            for (int i = 0; i < want[k].Length; i++) Assert.Equal(want[k][i], got[k][i], 1e-5 * (scale + Math.Abs(want[k][i])));
        }
        Assert.Empty(driver.Faults);
    }

    private static float[][] Results(Device device, bool isBackward, (int Length, int Channels, int States, bool HasGate) size)
    {
        (int length, int channels, int states, bool hasGate) = size;
        Tensor From(int seed, params long[] shape)
        {
            float[] values = Data.Random((int)shape.Aggregate((a, b) => a * b), seed);
            if (seed == 0) for (int i = 0; i < values.Length; i++) values[i] = -2 * Math.Abs(values[i]);
            return Tensor.From<float>(values, shape, device);
        }
        using Tape tape = Tape.Begin();
        Tensor A = From(0, channels, states), u = From(1, 1, length, channels), dt = From(2, 1, length, channels), B = From(4, 1, length, 1, states), C = From(5, 1, length, 1, states);
        Tensor? z = hasGate ? From(3, 1, length, channels) : null;
        Tensor D = From(6, channels), bias = From(7, channels), state = From(8, 2, channels, states);
        Tensor[] inputs = !isBackward ? [] : z is null ? [A, u, dt, B, C, D, bias, state] : [A, u, dt, z, B, C, D, bias, state];
        foreach (Tensor input in inputs) tape.Watch(input);
        (Tensor y, Tensor final) = ZEngine.Ops.SelectiveScan(u, dt, A, B, C, D, z, bias, state, layout: new SequenceLayout(0, 7, length));
        var results = new List<float[]> { y.ToArray<float>(), final.ToArray<float>() };
        if (isBackward) tape.Backward([y, final], [From(9, 1, length, channels), From(10, 2, channels, states)]);
        foreach (Tensor input in inputs) results.Add(tape.GradientOf(input).ToArray<float>());
        return [.. results];
    }
}

/// <summary>Two sequences of several tiles and intervals; and one long enough, of so few channels, that time is walked in segments.</summary>
internal sealed class SelectiveScanForwardScenario() : SelectiveScanScenario(false, (44, 36, 20, true), (1031, 4, 20, true))
{
    public override string File => "SelectiveScanForward.cu";

    public override IEnumerable<Survivor> Survivors =>
        [new("selective_scan_forward", "the words are seen before what they tell of", "seeing a word orders what came before it here; on a GPU the fence does that")];
}

/// <summary>
/// Two blocks that take turns, with two bands, with and without a gate; one band, whose states before the quarters of an interval's first half remain; and a last interval with both halves.
/// Seventeen blocks are two chains.
/// </summary>
internal sealed class SelectiveScanBackwardScenario() : SelectiveScanScenario(true, (44, 68, 20, true), (44, 68, 20, false), (44, 68, 8, true), (59, 68, 8, true), (9, 1028, 4, false))
{
    public override string File => "SelectiveScanBackward.cu";

    public override IEnumerable<Survivor> Survivors =>
        [new("selective_scan_backward", "the turn is seen before the sums", "seeing the turn orders what came before it here; on a GPU the fence does that", Most: 2)];
}

/// <summary>Long enough, and of so few channels, that time is walked in segments.</summary>
internal sealed class SelectiveScanStateScenario() : SelectiveScanScenario(true, (1031, 4, 20, true))
{
    public override string File => "SelectiveScanState.cu";

    public override bool Owns(string kernel) => kernel.Contains("selective_scan_state", StringComparison.Ordinal);
}
