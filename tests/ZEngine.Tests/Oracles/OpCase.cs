using System.Collections.Concurrent;
using System.Text.Json;

namespace ZEngine.Tests.Oracles;

/// <summary>One case of an op: inputs, attributes, the gradients sent into its outputs, and, from a golden folder, what must come out.</summary>
public sealed class OpCase
{
    public required string Name { get; init; }
    public required string Op { get; init; }
    public required JsonElement Attrs { get; init; }
    public required Dictionary<string, CaseTensor> Inputs { get; init; }
    public Dictionary<string, CaseTensor> Outputs { get; init; } = [];
    public Dictionary<string, CaseTensor> OutputGradients { get; init; } = [];
    public Dictionary<string, CaseTensor> InputGradients { get; init; } = [];

    public override string ToString() => Name;

    /// <summary>A float input by name.</summary>
    public OracleTensor<float> Input(string name) => Inputs[name].Floats;

    /// <summary>The same case with inputs and output gradients rounded, as a device of a lower precision receives them; golden values no longer hold.</summary>
    public OpCase Quantize(Func<float, float> round)
    {
        Dictionary<string, CaseTensor> Rounded(Dictionary<string, CaseTensor> tensors) => tensors.ToDictionary(
            entry => entry.Key,
            entry => entry.Value.IsInteger ? entry.Value : new CaseTensor(entry.Value.Floats.Select(round).Data, entry.Value.Shape));
        return new() { Name = Name, Op = Op, Attrs = Attrs, Inputs = Rounded(Inputs), OutputGradients = Rounded(OutputGradients) };
    }

    /// <summary>Reads case.json and tensors.safetensors; the prefixes in., out., gout. and grad. say what a tensor is.</summary>
    public static OpCase Load(string folder)
    {
        using JsonDocument json = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "case.json")));
        Dictionary<string, CaseTensor> tensors = SafeTensorsReader.Read(Path.Combine(folder, "tensors.safetensors"));
        Dictionary<string, CaseTensor> Under(string prefix) => tensors
            .Where(entry => entry.Key.StartsWith(prefix, StringComparison.Ordinal))
            .ToDictionary(entry => entry.Key[prefix.Length..], entry => entry.Value);
        return new()
        {
            Name = Path.GetFileName(folder.TrimEnd(Path.DirectorySeparatorChar)),
            Op = json.RootElement.Text("op") ?? throw new InvalidDataException($"{folder}: case.json names no op."),
            Attrs = json.RootElement.GetProperty("attrs").Clone(),
            Inputs = Under("in."),
            Outputs = Under("out."),
            OutputGradients = Under("gout."),
            InputGradients = Under("grad."),
        };
    }

    private static readonly ConcurrentDictionary<string, Lazy<OpCase>> Read = [];

    /// <summary>The golden case of that folder name; read once for all, so nobody may write to it.</summary>
    public static OpCase Golden(string name) => Read.GetOrAdd(name, folder => new(() => GoldenAnew(folder))).Value;

    /// <summary>The same, read again for one that changes it.</summary>
    public static OpCase GoldenAnew(string name) => Load(Path.Combine(GoldenFolder.Path, "ops", name));

    /// <summary>The folder names of all golden cases, or of those of one op.</summary>
    public static IEnumerable<string> GoldenNames(string? op = null) =>
        GoldenFolder.Cases("ops")
            .Select(folder => Path.GetFileName(folder)!)
            .Where(name => op is null || Golden(name).Op == op)
            .Order(StringComparer.Ordinal);
}
