namespace ZEngine.Tests;

/// <summary>A file of the repository.</summary>
/// <param name="Name">Relative to the repository, with forward slashes.</param>
internal sealed record SourceFile(string Name)
{
    public string Text => File.ReadAllText(Path.Combine(SourceTree.Root, Name));
    public string[] Lines => File.ReadAllLines(Path.Combine(SourceTree.Root, Name));

    /// <summary>Without folders and the last extension.</summary>
    public string Stem => Path.GetFileNameWithoutExtension(Name);

    /// <summary>Under <c>src</c>, <c>tests</c> or <c>bench</c>: the project's name.</summary>
    public string Project => Name.Split('/')[1];
}
