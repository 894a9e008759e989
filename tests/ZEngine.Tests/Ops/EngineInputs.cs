using System.Text.Json;
using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Ops;

/// <summary>A case's inputs as tensors of a device.</summary>
internal sealed class EngineInputs(OpCase c, Device device, DType type = DType.Float32)
{
    private readonly Dictionary<string, Tensor> _tensors = c.Inputs.ToDictionary(
        entry => entry.Key,
        entry => entry.Value.IsInteger
            ? Tensor.From<long>(entry.Value.Integers.Data, Shape(entry.Value), device)
            : Tensor.From<float>(entry.Value.Floats.Data, Shape(entry.Value), device).To(IsParameter(c.Op, entry.Key) ? DType.Float32 : type));

    public Device Device { get; } = device;

    public JsonElement Attrs { get; } = c.Attrs;

    public Tensor this[string name] => _tensors[name];

    public IEnumerable<KeyValuePair<string, Tensor>> Floats => _tensors.Where(entry => entry.Value.DType.IsFloat);

    public SequenceLayout? Layout => Attrs.Ints("cu_seqlens") is { } ends ? new SequenceLayout([.. ends.Select(end => (long)end)]) : null;

    public Tensor? Optional(string name) => _tensors.GetValueOrDefault(name);

    /// <summary>An initial state: one alone with several packed sequences belongs to the first.</summary>
    public Tensor? States(string name)
    {
        if (Optional(name) is not { } state || Layout is not { } layout || state.Shape[0] == layout.Count) return Optional(name);
        long[] rest = [layout.Count - 1, .. state.Shape[1..]];
        return ZEngine.Ops.Concat(0, state, Tensor.Zeros(rest, DType.Float32, Device));
    }

    /// <summary>What the goldens call the final state: with packed sequences, the last one's.</summary>
    public Tensor Last(Tensor states) => Layout is null ? states : states.Slice(0, states.Shape[0] - 1, 1);

    /// <summary>Inputs that are Float32 whatever the type of the activations.</summary>
    private static bool IsParameter(string op, string name) =>
        name is "bias" or "A" or "D" or "dt_bias" or "initial_state" || name == "weight" && op != "embedding" || name.StartsWith("lse", StringComparison.Ordinal);

    private static long[] Shape(CaseTensor tensor) => [.. tensor.Shape.Select(size => (long)size)];
}
