namespace ZEngine.Models;

/// <summary>A tensor of a file that is a part of a parameter: checkpoints store the matrices of experts one by one, the model computes with all of them as one.</summary>
/// <param name="Name">Its name in files.</param>
/// <param name="Parameter">What it is a part of.</param>
/// <param name="Shape">Its shape.</param>
/// <param name="View">Its place in the parameter's value.</param>
public sealed record StoredPart(string Name, Parameter Parameter, IReadOnlyList<long> Shape, Func<Tensor, Tensor> View);
