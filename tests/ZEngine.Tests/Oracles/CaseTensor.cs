namespace ZEngine.Tests.Oracles;

/// <summary>A tensor of a case: float32, or integers.</summary>
public sealed class CaseTensor
{
    private readonly OracleTensor<float>? _floats;
    private readonly OracleTensor<long>? _integers;

    public CaseTensor(float[] values, params int[] shape) => _floats = new(values, shape);
    public CaseTensor(long[] values, params int[] shape) => _integers = new(values, shape);

    public bool IsInteger => _integers is not null;
    public OracleTensor<float> Floats => _floats ?? throw new InvalidOperationException("The tensor holds integers.");
    public OracleTensor<long> Integers => _integers ?? throw new InvalidOperationException("The tensor holds floats.");
    public int[] Shape => _floats?.Shape ?? Integers.Shape;
}
