namespace ZEngine.Training;

/// <summary>A checkpoint folder that is not trusted.</summary>
/// <param name="Folder">The folder.</param>
/// <param name="Step">The step in its name.</param>
/// <param name="Reason">What is wrong with it, in one line.</param>
public sealed record InvalidCheckpoint(string Folder, long Step, string Reason);
