namespace ZEngine.Training;

/// <summary>Which part of a token source is read.</summary>
public enum DataPart
{
    /// <summary>Everything.</summary>
    All,
    /// <summary>What is not held out.</summary>
    Train,
    /// <summary>What training never sees.</summary>
    HeldOut,
}
