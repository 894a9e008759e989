namespace ZEngine;

/// <summary>A trainable change of a frozen parameter W: W + scale·Up·Down.</summary>
/// <remarks>Hu et al. 2021, arXiv:2106.09685, section 4. A vector has no low rank: its change is <see cref="Up"/> alone.</remarks>
/// <param name="down">[R, in], where W is [out, in] or [out, ...] with the other axes taken as one; null for a vector.</param>
/// <param name="up">[out, R], or the shape of a vector.</param>
/// <param name="scale">Factor on the change.</param>
public sealed class LowRankUpdate(Parameter? down, Parameter up, float scale)
{
    /// <summary>[R, in], or null for a vector.</summary>
    public Parameter? Down { get; } = down;

    /// <summary>[out, R], or the shape of a vector.</summary>
    public Parameter Up { get; } = up;

    /// <summary>Factor on the change.</summary>
    public float Scale { get; } = scale;
}
