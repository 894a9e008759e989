using System.Text;
using System.Text.RegularExpressions;

namespace ZEngine.Cli;

/// <summary>Turns names, folders and patterns into files, always in the same order.</summary>
internal static class DataFiles
{
    private static readonly string[] RepositoryEndings = [".cs", ".cu", ".cuh", ".md", ".sh", ".ps1", ".csproj", ".props"];
    private static readonly string[] SkippedFolders = ["bin", "obj", "golden", "node_modules"];

    /// <summary>The files that arguments name, as full paths, each once.</summary>
    /// <param name="names">Files; folders, which stand for the text files in them; patterns with <c>*</c>, <c>?</c> and <c>**</c>.</param>
    /// <exception cref="UserError">A name stands for no file.</exception>
    public static IReadOnlyList<string> Find(IEnumerable<string> names)
    {
        var files = new List<string>();
        foreach (string name in names)
        {
            string[] found = File.Exists(name) ? [Path.GetFullPath(name)]
                : Directory.Exists(name) ? [.. Below(Path.GetFullPath(name)).Where(IsText)]
                : name.AsSpan().IndexOfAny('*', '?') >= 0 ? Matching(name)
                : throw new UserError(ExitCode.BadInput, $"{name}: there is no such file or folder.");
            if (found.Length == 0) throw new UserError(ExitCode.BadInput, $"{name}: stands for no text file.");
            files.AddRange(found);
        }
        return [.. files.Distinct(StringComparer.Ordinal)];
    }

    /// <summary>Sources and documents of the repository that holds the working folder or this program.</summary>
    /// <exception cref="UserError">There is none.</exception>
    public static IReadOnlyList<string> OfRepository()
    {
        foreach (string start in (string[])[Directory.GetCurrentDirectory(), AppContext.BaseDirectory])
            for (DirectoryInfo? folder = new(start); folder is not null; folder = folder.Parent)
                if (File.Exists(Path.Combine(folder.FullName, "ZEngine.sln")))
                    return [.. Below(folder.FullName).Where(file => RepositoryEndings.Contains(Path.GetExtension(file)))];
        throw new UserError(ExitCode.Usage, "The demo found no repository to learn from; name text files: zengine demo FILES.");
    }

    private static string[] Matching(string pattern)
    {
        string[] parts = pattern.Replace('\\', '/').Split('/');
        int fixedParts = Array.FindIndex(parts, part => part.AsSpan().IndexOfAny('*', '?') >= 0);
        string root = Path.GetFullPath(fixedParts == 0 ? "." : string.Join('/', parts[..fixedParts]) + "/");
        if (!Directory.Exists(root)) return [];
        var regex = new StringBuilder("^");
        string rest = string.Join('/', parts[fixedParts..]);
        for (int i = 0; i < rest.Length; i++)
        {
            if (rest.AsSpan(i).StartsWith("**/")) (_, i) = (regex.Append("(.*/)?"), i + 2);
            else regex.Append(rest[i] switch { '*' => "[^/]*", '?' => "[^/]", var c => Regex.Escape(c.ToString()) });
        }
        var matcher = new Regex(regex.Append('$').ToString(), RegexOptions.CultureInvariant);
        return [.. Below(root).Where(file => matcher.IsMatch(Path.GetRelativePath(root, file).Replace('\\', '/')))];
    }

    /// <summary>All files below a folder, but for hidden and built ones.</summary>
    private static IEnumerable<string> Below(string folder)
    {
        foreach (string file in Directory.GetFiles(folder).Order(StringComparer.Ordinal))
            if (Path.GetFileName(file)[0] != '.') yield return file;
        foreach (string inner in Directory.GetDirectories(folder).Order(StringComparer.Ordinal))
        {
            string name = Path.GetFileName(inner);
            if (name[0] == '.' || SkippedFolders.Contains(name) || new DirectoryInfo(inner).LinkTarget is not null) continue;
            foreach (string file in Below(inner)) yield return file;
        }
    }

    private static bool IsText(string file)
    {
        using FileStream stream = File.OpenRead(file);
        Span<byte> head = stackalloc byte[4096];
        int count = stream.ReadAtLeast(head, head.Length, throwOnEndOfStream: false);
        return count > 0 && head[..count].IndexOf((byte)0) < 0;
    }
}
