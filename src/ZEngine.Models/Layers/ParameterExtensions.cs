namespace ZEngine.Models;

/// <summary>The one way in which models use parameters, so that a low-rank update is honoured everywhere.</summary>
internal static class ParameterExtensions
{
    /// <summary>x·Wᵀ + bias, with the update of W as two thin products.</summary>
    public static Tensor Project(this Parameter weight, Tensor x, Parameter? bias = null)
    {
        Tensor y = Ops.Linear(x, weight.Value, bias?.Effective());
        if (weight.Update is not { } update) return y;
        return Ops.Add(y, Ops.Scale(Ops.Linear(Ops.Linear(x, update.Down!.Value), update.Up.Value), update.Scale));
    }

    /// <summary>The value with its update added, Float32 where there is one.</summary>
    public static Tensor Effective(this Parameter parameter)
    {
        if (parameter.Update is not { } update) return parameter.Value;
        Tensor change = update.Down is null ? update.Up.Value : Ops.MatMul(update.Up.Value, update.Down.Value).Reshape(parameter.Shape);
        return Ops.Add(parameter.Value.To(DType.Float32), Ops.Scale(change, update.Scale));
    }
}
