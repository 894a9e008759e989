namespace ZEngine;

public static partial class Ops
{
    /// <summary>The gated unit of an MLP: f(gate) ⊙ up.</summary>
    /// <param name="gate">[..., D].</param>
    /// <param name="up">[..., D].</param>
    /// <param name="function">Silu (SwiGLU), Gelu or GeluTanh (GeGLU), Sigmoid (GLU) or Relu (ReGLU).</param>
    /// <remarks>Shazeer 2020, arXiv:2002.05202.</remarks>
    public static Tensor GatedActivation(Tensor gate, Tensor up, Pointwise function)
    {
        var contract = new ShapeContract(nameof(GatedActivation));
        RequireGate(contract, function);
        contract.Require(gate, "... D");
        contract.Require(up, "... D");
        contract.Require(gate.Shape.SequenceEqual(up.Shape), $"gate is {Tensor.ShapeText(gate.Shape)} but up is {Tensor.ShapeText(up.Shape)}.");
        using TensorScope scope = TensorScope.Enter();
        (gate, up) = (gate.WithEvenRows(), up.WithEvenRows());
        Tensor y = Tensor.Empty(gate.Shape, gate.DType, gate.Device);
        y.Backend.GatedActivationForward(function, gate, up, y);
        return scope.Keep(Tape.IsRecording ? RecordGatedActivation(function, gate, up, y) : y);
    }

    /// <summary>The gated unit on one tensor whose rows hold the gate first, then up.</summary>
    /// <param name="gateUp">[..., 2·D].</param>
    /// <param name="function">As above.</param>
    /// <returns>[..., D].</returns>
    public static Tensor GatedActivation(Tensor gateUp, Pointwise function)
    {
        var contract = new ShapeContract(nameof(GatedActivation));
        RequireGate(contract, function);
        contract.Require(gateUp, "... D");
        contract.Require(gateUp.Shape[^1] % 2 == 0, $"the last axis of gateUp {Tensor.ShapeText(gateUp.Shape)} must be even.");
        using TensorScope scope = TensorScope.Enter();
        gateUp = gateUp.Contiguous();
        long width = gateUp.Shape[^1] / 2;
        Tensor gate, up;
        using (Tape.NoGrad())
            (gate, up) = (gateUp.Slice(-1, 0, width), gateUp.Slice(-1, width, width));
        Tensor y = Tensor.Empty(gate.Shape, gate.DType, gate.Device);
        y.Backend.GatedActivationForward(function, gate, up, y);
        return scope.Keep(Tape.Tracks(gateUp) ? RecordGatedActivation(function, gateUp, gate, up, y) : y);
    }

    private static Tensor RecordGatedActivation(Pointwise function, Tensor gate, Tensor up, Tensor y) => Tape.Record(y, [gate, up], [gate, up], dy =>
    {
        Tensor dGate = Tensor.Empty(gate.Shape, dy.DType, dy.Device), dUp = Tensor.Empty(gate.Shape, dy.DType, dy.Device);
        dy.Backend.GatedActivationBackward(function, gate, up, dy.Contiguous(), dGate, dUp);
        return [dGate, dUp];
    });

    private static Tensor RecordGatedActivation(Pointwise function, Tensor gateUp, Tensor gate, Tensor up, Tensor y) => Tape.Record(y, [gateUp], [gate, up], dy =>
    {
        Tensor d = Tensor.Empty(gateUp.Shape, dy.DType, dy.Device);
        long width = gate.Shape[^1];
        dy.Backend.GatedActivationBackward(function, gate, up, dy.Contiguous(), d.Slice(-1, 0, width), d.Slice(-1, width, width));
        return [d];
    });

    private static void RequireGate(ShapeContract contract, Pointwise function) => contract.Require(
        function is Pointwise.Silu or Pointwise.Gelu or Pointwise.GeluTanh or Pointwise.Sigmoid or Pointwise.Relu,
        $"{function} is not the activation of a gated unit; Silu, Gelu, GeluTanh, Sigmoid and Relu are.");
}

public abstract partial class Backend
{
    /// <summary>y = f(gate)·up; y is contiguous, the inputs have even rows.</summary>
    internal abstract void GatedActivationForward(Pointwise function, Tensor gate, Tensor up, Tensor y);

    /// <summary>dGate = dy·up·f'(gate), dUp = dy·f(gate); both have even rows.</summary>
    internal abstract void GatedActivationBackward(Pointwise function, Tensor gate, Tensor up, Tensor dy, Tensor dGate, Tensor dUp);
}
