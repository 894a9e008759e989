namespace ZEngine;

/// <summary>Records ops while open, works out gradients from the record, and owns every temporary of the step it was opened for.</summary>
/// <remarks>
/// One tape records at a time on a thread. Ops on parameters, on watched tensors and on what follows from them are recorded; an op
/// keeps only the tensors that its backward pass reads, so an inner <see cref="TensorScope"/> frees the rest. Gradients of
/// parameters add up in <see cref="Parameter.Gradient"/> over uses, backward passes and tapes; those of watched tensors add up in
/// the tape. The order of all sums is the order of the record, so the bits repeat.
/// </remarks>
public readonly ref struct Tape : IDisposable
{
    private readonly TapeState _state;
    private readonly TapeState? _outer;
    private readonly TensorScope _scope;

    private Tape(TapeState state, TapeState? outer, TensorScope scope)
    {
        _state = state;
        _outer = outer;
        _scope = scope;
    }

    /// <summary>Whether ops on this thread are being recorded.</summary>
    public static bool IsRecording => TapeState.Current is not null;

    /// <summary>Opens a tape on this thread.</summary>
    /// <exception cref="InvalidOperationException">One is recording already.</exception>
    public static Tape Begin()
    {
        if (IsRecording) throw new InvalidOperationException("Tape.Begin: a tape is already recording on this thread.");
        return BeginInner();
    }

    /// <summary>Pauses recording until the result is disposed.</summary>
    public static NoGradient NoGrad() => new(TapeState.Current);

    /// <summary>Notes how to turn the gradient of an output into gradients of its inputs. Built-in ops use this call too.</summary>
    /// <param name="output">What the op computed.</param>
    /// <param name="inputs">What it computed it from; null for an optional tensor that is absent.</param>
    /// <param name="backward">Given d output, returns the gradients in the order of <paramref name="inputs"/>, null where there is none. May read inputs and output.</param>
    /// <returns><paramref name="output"/>.</returns>
    public static Tensor Record(Tensor output, ReadOnlySpan<Tensor?> inputs, Func<Tensor, Tensor?[]> backward)
    {
        ArgumentNullException.ThrowIfNull(output);
        Tensor?[] saved = [output, .. inputs];
        return Record(output, inputs, saved, backward);
    }

    /// <summary>As above, for an op whose backward pass reads only the tensors in <paramref name="saved"/>.</summary>
    public static Tensor Record(Tensor output, ReadOnlySpan<Tensor?> inputs, ReadOnlySpan<Tensor?> saved, Func<Tensor, Tensor?[]> backward)
    {
        ArgumentNullException.ThrowIfNull(output);
        ArgumentNullException.ThrowIfNull(backward);
        if (TapeState.Current is { } tape && tape.TracksAny(inputs)) tape.Add([output], inputs, saved, new SingleOutput(backward).Run);
        return output;
    }

    /// <summary>Notes an op with several outputs; the gradient of an output that nothing used is null.</summary>
    public static void Record(ReadOnlySpan<Tensor> outputs, ReadOnlySpan<Tensor?> inputs, ReadOnlySpan<Tensor?> saved, Func<Tensor?[], Tensor?[]> backward)
    {
        ArgumentNullException.ThrowIfNull(backward);
        if (TapeState.Current is { } tape && tape.TracksAny(inputs)) tape.Add(outputs, inputs, saved, backward);
    }

    /// <summary>Runs a region without keeping its temporaries; the backward pass runs it again to have them (activation recomputation).</summary>
    /// <param name="inputs">The tensors that the region computes from, beside parameters.</param>
    /// <param name="region">Must compute the same values both times.</param>
    /// <remarks>Source: Chen, Xu, Zhang and Guestrin 2016, arXiv:1604.06174, section 3.</remarks>
    public static Tensor Recompute(ReadOnlySpan<Tensor> inputs, Func<Tensor[], Tensor> region)
    {
        ArgumentNullException.ThrowIfNull(region);
        Tensor[] given = inputs.ToArray();
        if (TapeState.Current is not { } tape) return region(given);

        Tensor output;
        using (TensorScope scope = TensorScope.Enter())
        using (NoGrad())
            output = scope.Keep(region(given));
        tape.Add([output], inputs, inputs, dOutputs => RunAgain(given, region, dOutputs[0]!), isOpaque: true);
        return output;
    }

    /// <summary>Asks for the gradient of a tensor that is no parameter.</summary>
    /// <returns><paramref name="tensor"/>.</returns>
    public Tensor Watch(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        if (tensor.IsDisposed) throw new ObjectDisposedException(nameof(tensor), $"Tape.Watch: {tensor}: it has no gradient any more.");
        if (!tensor.DType.IsFloat) throw new ArgumentException($"Tape.Watch: {tensor} holds no floating-point numbers, so it has no gradient.");
        _state.Watch(tensor);
        return tensor;
    }

    /// <summary>Adds the gradients of a scalar loss to those of the parameters and the watched tensors.</summary>
    /// <param name="loss">[], a recorded tensor of this tape.</param>
    public void Backward(Tensor loss)
    {
        ArgumentNullException.ThrowIfNull(loss);
        if (loss.IsDisposed) throw new ObjectDisposedException(nameof(loss), $"Tape.Backward: the loss, {loss}, was disposed, by hand or with the scope that owned it.");
        if (loss.Count != 1) throw new ArgumentException($"Tape.Backward: the loss must have one element, got {loss}; give the gradient of other tensors with it.");
        Tensor one = Tensor.Empty(loss.Shape, loss.DType, loss.Device);
        loss.Backend.Fill(one, 1);
        Backward([loss], [one]);
    }

    /// <summary>Sends a gradient into one output.</summary>
    public void Backward(Tensor output, Tensor gradient) => Backward([output], [gradient]);

    /// <summary>Sends a gradient into one output, and says of each parameter when its gradient is final for this pass.</summary>
    /// <param name="output">A recorded tensor of this tape.</param>
    /// <param name="gradient">Its gradient.</param>
    /// <param name="isFinal">Called once for a parameter, after its last use: what was recorded first comes last. Regions that are recomputed hold all parameters back.</param>
    public void Backward(Tensor output, Tensor gradient, Action<Parameter> isFinal)
    {
        ArgumentNullException.ThrowIfNull(isFinal);
        using NoGradient pause = NoGrad();
        _state.Backward([output], [gradient], isFinal);
    }

    /// <summary>Sends gradients into several outputs in one pass.</summary>
    /// <exception cref="ArgumentException">Shapes differ, or an output was not recorded by this tape.</exception>
    public void Backward(ReadOnlySpan<Tensor> outputs, ReadOnlySpan<Tensor> gradients)
    {
        if (outputs.Length != gradients.Length) throw new ArgumentException($"Tape.Backward: {outputs.Length} outputs but {gradients.Length} gradients.");
        using NoGradient pause = NoGrad();
        _state.Backward(outputs, gradients);
    }

    /// <summary>The gradient of a watched tensor, added up over the backward passes so far.</summary>
    /// <exception cref="InvalidOperationException">Not watched, or no gradient reached it.</exception>
    public Tensor GradientOf(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        return _state.GradientOf(tensor) ?? throw new InvalidOperationException($"Tape.GradientOf: no gradient reached {tensor}; was it watched, and does the loss depend on it?");
    }

    /// <summary>Ends the record and disposes the step's temporaries.</summary>
    public void Dispose()
    {
        TapeState.Current = _outer;
        _state.Close();
        _scope.Dispose();
    }

    internal static bool Tracks(Tensor tensor) => TapeState.Current is { } tape && tape.Tracks(tensor);

    private static Tape BeginInner()
    {
        TensorScope scope = TensorScope.Enter();
        TapeState? outer = TapeState.Current;
        TapeState.Current = new TapeState(scope.Tensors);
        return new Tape(TapeState.Current, outer, scope);
    }

    private static Tensor?[] RunAgain(Tensor[] given, Func<Tensor[], Tensor> region, Tensor dOutput)
    {
        var gradients = new Tensor?[given.Length];
        using Tape tape = BeginInner();
        var again = new Tensor[given.Length];
        for (int i = 0; i < given.Length; i++)
        {
            again[i] = given[i].Detach();
            if (given[i].DType.IsFloat) tape.Watch(again[i]);
        }
        Tensor output = region(again);
        if (!tape._state.Tracks(output)) return gradients;     // nothing in the region is trainable
        tape.Backward(output, dOutput);
        for (int i = 0; i < given.Length; i++)
            if (tape._state.GradientOf(again[i]) is { } gradient) gradients[i] = tape._scope.Keep(gradient);
        return gradients;
    }

    private sealed class SingleOutput(Func<Tensor, Tensor?[]> backward)
    {
        public Tensor?[] Run(Tensor?[] gradients) => backward(gradients[0]!);
    }
}

/// <summary>While open, ops of this thread are not recorded.</summary>
public readonly ref struct NoGradient : IDisposable
{
    private readonly TapeState? _paused;

    internal NoGradient(TapeState? paused)
    {
        _paused = paused;
        TapeState.Current = null;
    }

    /// <summary>Recording goes on.</summary>
    public void Dispose() => TapeState.Current = _paused;
}
