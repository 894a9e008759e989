namespace ZEngine.Models;

/// <summary>A part of a model, for summaries.</summary>
/// <param name="Name">What it is.</param>
/// <param name="Count">How often it stands in the model.</param>
/// <param name="Parameters">Numbers of all its copies together; a shared part's are counted once.</param>
/// <param name="FlopsPerToken">Multiplications and additions of the forward pass for one token, at the context length 0: attention over a context comes on top.</param>
/// <param name="StateBytes">Bytes of fixed-size state that a sequence keeps.</param>
/// <param name="CacheBytesPerToken">Bytes of key-value cache that each token of a sequence adds; in layers with a window, until that is full.</param>
public sealed record ModelPart(string Name, int Count, long Parameters, long FlopsPerToken, long StateBytes = 0, long CacheBytesPerToken = 0);
