using System.Reflection;

namespace ZEngine.Tests;

/// <summary>The repository that the tests were built from, where it is still there; of a bundle, the copy in it.</summary>
internal static class SourceTree
{
    /// <summary>Ends with a separator.</summary>
    public static string Root { get; } = Directory.Exists(Bundled) ? Bundled
        : typeof(SourceTree).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().First(attribute => attribute.Key == "RepositoryRoot").Value!;

    private static string Bundled => Path.GetFullPath(Path.Combine(AppContext.BaseDirectory, "..", "repository")) + Path.DirectorySeparatorChar;

    /// <summary>Skips the running test where the sources are not there.</summary>
    public static void Require()
    {
        if (!File.Exists(Path.Combine(Root, "ZEngine.sln"))) Assert.Skip($"The sources are not at {Root}: this program runs away from its repository.");
    }

    /// <summary>Files below a folder of the repository, build outputs left out; empty when there is no such folder.</summary>
    public static IEnumerable<SourceFile> Files(string folder, string pattern)
    {
        string path = Path.Combine(Root, folder);
        if (!Directory.Exists(path)) return [];
        return from file in Directory.EnumerateFiles(path, pattern, SearchOption.AllDirectories)
               let relative = Path.GetRelativePath(Root, file).Replace('\\', '/')
               where !relative.Contains("/bin/", StringComparison.Ordinal) && !relative.Contains("/obj/", StringComparison.Ordinal)
               orderby relative
               select new SourceFile(relative);
    }

    public static bool Exists(string relative) => File.Exists(Path.Combine(Root, relative));
}
