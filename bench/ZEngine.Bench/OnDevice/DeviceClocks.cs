using System.Globalization;
using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Interop;

namespace ZEngine.Bench;

/// <summary>Measures rows on one kind of device.</summary>
internal interface IDeviceClock : IDisposable
{
    /// <summary>What the device can do at most, in words.</summary>
    string Limits { get; }

    DeviceResult Measure(DeviceRow row, DType type, Action run);
}

/// <summary>A time and what it is of the limits.</summary>
internal static class Rates
{
    public const int Rounds = 7;

    public static DeviceResult Of(DeviceRow row, DType type, double seconds, double peakFlops, double peakBytes) => new(row.Op, row.Pass, row.Shape, type.ToString())
    {
        Ms = 1e3 * seconds, GBytesPerSecond = row.Bytes / seconds / 1e9, TFlopsPerSecond = row.Flops == 0 ? null : row.Flops / seconds / 1e12,
        // The least time that either limit allows, of the time that it took.
        ShareOfPeak = Math.Max(row.Bytes / peakBytes, row.Flops / peakFlops) / seconds,
    };
}

/// <summary>The CPU by the wall.</summary>
internal sealed class CpuClock : IDeviceClock
{
    private readonly Machine _machine = new();

    public CpuClock() => _machine.Probe(CpuDevice.Threads);

    public string Limits => string.Create(CultureInfo.InvariantCulture, $"{Peak.Flops / 1e9:F0} GFLOP/s of multiply-adds on registers, {Peak.Bytes / 1e9:F1} GB/s of a plain sum, {CpuDevice.Threads} threads");

    private (double Flops, double Bytes) Peak => _machine.Limits(CpuDevice.Threads);

    public DeviceResult Measure(DeviceRow row, DType type, Action run)
    {
        for (int i = 0; i < 3; i++) run();
        double best = double.MaxValue;
        for (int round = 0; round < Rates.Rounds; round++)
        {
            double start = Clock.Seconds;
            run();
            best = Math.Min(best, Clock.Seconds - start);
        }
        _machine.Probe(CpuDevice.Threads);
        return Rates.Of(row, type, best, Peak.Flops, Peak.Bytes);
    }

    public void Dispose() => _machine.Dispose();
}

/// <summary>A GPU by its own events: medians of rounds of about 20 ms.</summary>
internal sealed class CudaClock : IDeviceClock
{
    private const double RoundMs = 20;
    private const long CopyBytes = 1L << 30, ProductSize = 8192;

    private readonly CudaDevice _device;
    private readonly CudaEvent _start, _end;
    private readonly double _peakBytes;
    private readonly Dictionary<DType, double> _peakFlops = [];

    public CudaClock(CudaDevice device)
    {
        (_device, _start, _end) = (device, device.Record(isTimed: true), device.Record(isTimed: true));
        using Tensor from = Tensor.Zeros([CopyBytes], DType.UInt8, device), to = Tensor.Empty([CopyBytes], DType.UInt8, device);
        _peakBytes = 2 * CopyBytes / Seconds(() => device.Enter().CopyOnDeviceAsync(new DevicePointer((ulong)to.Address), new DevicePointer((ulong)from.Address), (ulong)CopyBytes, device.Stream));
    }

    public string Limits => string.Create(CultureInfo.InvariantCulture, $"{_peakBytes / 1e12:F2} TB/s of the driver's copy, {string.Join(", ", _peakFlops.Select(peak => $"{peak.Value / 1e12:F0} TFLOP/s of a product of {ProductSize}³ in {peak.Key}"))}");

    public DeviceResult Measure(DeviceRow row, DType type, Action run)
    {
        if (!_peakFlops.TryGetValue(type, out double flops)) flops = _peakFlops[type] = ProductRate(type);
        return Rates.Of(row, type, Seconds(run), flops, _peakBytes);
    }

    /// <summary>Seconds of one run: the median round.</summary>
    private double Seconds(Action run)
    {
        for (int i = 0; i < 3; i++) run();
        double each = Round(run, 1);
        int calls = (int)Math.Clamp(RoundMs / each, 1, 1000);
        double[] rounds = [.. Enumerable.Range(0, Rates.Rounds).Select(_ => Round(run, calls)).Order()];
        return rounds[Rates.Rounds / 2] / 1e3;
    }

    private double Round(Action run, int calls)
    {
        _start.Record();
        for (int i = 0; i < calls; i++) run();
        _end.Record();
        _end.Wait();
        return CudaEvent.ElapsedMs(_start, _end) / calls;
    }

    private double ProductRate(DType type)
    {
        using var operands = new DeviceOperands(_device, type);
        (Tensor a, Tensor b) = (operands.Normal(ProductSize, ProductSize), operands.Normal(ProductSize, ProductSize));
        return 2.0 * ProductSize * ProductSize * ProductSize / Seconds(() => DeviceOperands.Once(() => Ops.Linear(a, b)));
    }

    public void Dispose()
    {
        _start.Dispose();
        _end.Dispose();
    }
}

/// <summary>The emulator: no time, but what every launch did.</summary>
internal sealed class CountingClock(CudaDevice device, EmulatedCudaDriver driver) : IDeviceClock
{
    private const int WideBytes = 16, SectorBytes = 32, SharedBytesPerWavefront = 128;

    public string Limits => "counters of the PTX that was executed; no times";

    public DeviceResult Measure(DeviceRow row, DType type, Action run)
    {
        device.Synchronize();
        int before = driver.Profiles.Count;
        run();
        device.Synchronize();
        LaunchProfile[] launches = [.. driver.Profiles.Skip(before)];
        long Sum(Func<InstructionCounter, long> what, params ReadOnlySpan<InstructionClass> kinds)
        {
            long sum = 0;
            foreach (InstructionClass kind in kinds) sum += launches.Sum(launch => what(launch[kind]));
            return sum;
        }
        InstructionClass[] global = [InstructionClass.GlobalLoad, InstructionClass.GlobalStore, InstructionClass.AsyncCopy], shared = [InstructionClass.SharedLoad, InstructionClass.SharedStore, InstructionClass.MatrixLoad];
        long bytes = Sum(counter => counter.Bytes, global), sharedBytes = Sum(counter => counter.Bytes, shared);
        double matrix = launches.Sum(launch => launch.MatrixFlops);
        return new DeviceResult(row.Op, row.Pass, row.Shape, type.ToString())
        {
            Launches = launches.Length, BytesToMinimum = bytes / row.Bytes,
            SectorsFilled = (double)bytes / (SectorBytes * Sum(counter => counter.Sectors, global)),
            // An access of a thread moves 16 bytes where all are wide.
            WideShare = (double)bytes / (WideBytes * Sum(counter => counter.Threads, global)),
            SharedWavefronts = sharedBytes == 0 ? null : Sum(counter => counter.Wavefronts, shared) / Math.Max(1.0, (double)sharedBytes / SharedBytesPerWavefront),
            MatrixFlopsToFormula = matrix == 0 || row.Flops == 0 ? null : matrix / row.Flops,
        };
    }

    public void Dispose() { }
}
