namespace ZEngine.Training;

/// <summary>What form the change of a parameter has.</summary>
internal enum LoraKind
{
    /// <summary>[out, in]: Up·Down.</summary>
    Matrix,
    /// <summary>[C, 1, K]: Up·Down over the taps.</summary>
    Kernel,
    /// <summary>One axis: a change of the same shape.</summary>
    Vector,
}
