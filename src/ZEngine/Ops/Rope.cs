namespace ZEngine;

/// <summary>Which channels of a head rotate together.</summary>
public enum RotaryStyle
{
    /// <summary>Channel i with channel i + r/2 (GPT-NeoX, Llama).</summary>
    Half,
    /// <summary>Channel 2i with channel 2i + 1 (the paper, GPT-J).</summary>
    Interleaved,
}

public static partial class Ops
{
    /// <summary>Rotary position embedding: rotates pairs of channels by angles that grow with the position.</summary>
    /// <param name="x">[B, L, H, P].</param>
    /// <param name="cosine">[positions, pairs], Float32: row p holds the cosines of position p; 2·pairs ≤ P channels rotate, the others stay.</param>
    /// <param name="sine">[positions, pairs], Float32.</param>
    /// <param name="offset">Position of the first step: the length of the cache before this call.</param>
    /// <param name="style">Which channels form pairs.</param>
    /// <param name="layout">Boundaries of packed sequences, in each of which positions begin at the offset; or null.</param>
    /// <remarks>(a, b) → (a·cos - b·sin, b·cos + a·sin). Su et al. 2021, arXiv:2104.09864, section 3.2.</remarks>
    public static Tensor Rope(Tensor x, Tensor cosine, Tensor sine, long offset = 0, RotaryStyle style = RotaryStyle.Half, SequenceLayout? layout = null)
    {
        var contract = new ShapeContract(nameof(Rope));
        contract.Require(x, "B L H P");
        contract.RequireFloat32(cosine, "positions pairs");
        contract.RequireFloat32(sine, "positions pairs");
        contract.RequireLayout(layout);
        contract.Require(2 * cosine.Shape[1] <= contract['P'], $"{cosine.Shape[1]} pairs need {2 * cosine.Shape[1]} channels, but P is {contract['P']}.");
        contract.Require(offset >= 0 && offset + contract['L'] <= cosine.Shape[0], $"x {Tensor.ShapeText(x.Shape)} needs positions {offset}..{offset + contract['L']}, but cosine {Tensor.ShapeText(cosine.Shape)} has {cosine.Shape[0]}.");

        using TensorScope scope = TensorScope.Enter();
        var inputs = new RopeInputs(x.WithDenseInner(1), cosine.Contiguous(), sine.Contiguous(), offset, style, layout, IsInverse: false);
        Tensor y = Tensor.Empty(x.Shape, x.DType, x.Device);
        x.Backend.Rope(inputs, y);
        return scope.Keep(Tape.Tracks(x) ? RecordRope(inputs, y) : y);
    }

    private static Tensor RecordRope(RopeInputs x, Tensor y) => Tape.Record(y, [x.X], [x.Cosine, x.Sine], dy =>
    {
        Tensor dx = Tensor.Empty(dy.Shape, dy.DType, dy.Device);
        dy.Backend.Rope(x with { X = dy.WithDenseInner(1), IsInverse = true }, dx);
        return [dx];
    });
}

/// <summary>The channels of x are dense; its other axes may have any strides. The inverse rotates by the negative angle: the gradient.</summary>
internal readonly record struct RopeInputs(Tensor X, Tensor Cosine, Tensor Sine, long Offset, RotaryStyle Style, SequenceLayout? Layout, bool IsInverse);

public abstract partial class Backend
{
    /// <summary>Writes y [B, L, H, P], contiguous.</summary>
    internal abstract void Rope(RopeInputs x, Tensor y);
}
