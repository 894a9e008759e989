namespace ZEngine.Training;

/// <summary>The gradients of many parameters seen as one long vector.</summary>
public static class Gradients
{
    /// <summary>The Euclidean norm of all gradients; parameters without one are left out.</summary>
    /// <returns>[] Float32 on the parameters' device; infinite or NaN where an element is.</returns>
    /// <exception cref="InvalidOperationException">No parameter has a gradient.</exception>
    public static Tensor Norm(IReadOnlyList<Parameter> parameters)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        var gradients = new List<Tensor>(parameters.Count);
        for (int i = 0; i < parameters.Count; i++)
            if (parameters[i].Gradient is { } gradient) gradients.Add(gradient);
        if (gradients.Count == 0) throw new InvalidOperationException("Gradients.Norm: no parameter has a gradient; run Tape.Backward first.");
        return Ops.Norm(gradients);
    }

    /// <summary>Scales all gradients down so that their norm is at most <paramref name="max"/>.</summary>
    /// <returns>The norm before; where it is not finite the gradients are left as they are.</returns>
    /// <remarks><see cref="AdamW.Step(float, Tensor?, float)"/> clips within its own pass over the parameters when it is given the norm, which reads and writes less.</remarks>
    public static float ClipNorm(IReadOnlyList<Parameter> parameters, float max)
    {
        if (!(max > 0)) throw new ArgumentOutOfRangeException(nameof(max), max, "the largest norm must be positive");
        using TensorScope scope = TensorScope.Enter();
        float norm = Norm(parameters).Item();
        if (!float.IsFinite(norm) || norm <= max) return norm;
        for (int i = 0; i < parameters.Count; i++) parameters[i].ScaleGradient(max / norm);
        return norm;
    }
}
