namespace ZEngine.Tests.Ops;

/// <summary>A valid call of an op with small tensors, which tests then spoil one by one.</summary>
/// <param name="method">The method and its parameters, for example <c>MatMul(a, b, transposeA, transposeB, bias)</c>.</param>
/// <param name="run">The call, given the tensors by name.</param>
internal sealed class OpCall(string method, Action<IReadOnlyDictionary<string, Tensor>> run)
{
    private readonly List<(string Name, long[] Shape, DType DType)> _tensors = [];
    private readonly Dictionary<string, string> _allowed = [];

    /// <summary>The name that error messages begin with.</summary>
    public string Op { get; private init; } = method[..method.IndexOf('(', StringComparison.Ordinal)];

    public string Method { get; } = method;

    public IReadOnlyList<(string Name, long[] Shape, DType DType)> Tensors => _tensors;

    /// <summary>What is no fault, as <c>tensor fault</c>, with the reason.</summary>
    public IReadOnlyDictionary<string, string> Allowed => _allowed;

    public OpCall As(string op)
    {
        var renamed = new OpCall(Method, run) { Op = op };
        renamed._tensors.AddRange(_tensors);
        foreach ((string key, string reason) in _allowed) renamed._allowed[key] = reason;
        return renamed;
    }

    /// <summary>A Float32 tensor.</summary>
    public OpCall Float(string name, params long[] shape) => Add(name, shape, DType.Float32);

    /// <summary>An Int32 tensor of zeros.</summary>
    public OpCall Index(string name, params long[] shape) => Add(name, shape, DType.Int32);

    public OpCall Add(string name, long[] shape, DType dtype)
    {
        _tensors.Add((name, shape, dtype));
        return this;
    }

    /// <summary>Says that faults of a tensor are none, and why: <c>disposed</c>, <c>type</c>, <c>rank</c>, <c>device</c>, <c>axis 0</c>, …</summary>
    public OpCall Allow(string reason, string tensor, params string[] faults)
    {
        foreach (string fault in faults) _allowed[$"{tensor} {fault}"] = reason;
        return this;
    }

    public void Run(IReadOnlyDictionary<string, Tensor> tensors) => run(tensors);

    public override string ToString() => Method;
}
