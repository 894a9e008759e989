using System.Diagnostics;
using System.Text.RegularExpressions;

namespace ZEngine.Tests.Structure;

/// <summary>Every C# snippet of the README is a program that compiles without a warning against the built assemblies.</summary>
public sealed partial class ReadmeSnippet
{
    private const string ImplicitUsings = """
        global using System; global using System.Collections.Generic; global using System.IO; global using System.Linq;
        global using System.Net.Http; global using System.Threading; global using System.Threading.Tasks;
        """;

    [Fact]
    public void Compiles()
    {
        string runtime = Path.GetDirectoryName(typeof(object).Assembly.Location)!, root = Path.GetFullPath(Path.Combine(runtime, "..", "..", ".."));
        string? compiler = Directory.Exists(Path.Combine(root, "sdk"))
            ? Directory.EnumerateFiles(Path.Combine(root, "sdk"), "csc.dll", SearchOption.AllDirectories).Order(StringComparer.Ordinal).LastOrDefault() : null;
        if (compiler is null) Assert.Skip($"There is no C# compiler in {root}: the tests run without an SDK.");
        SourceTree.Require();
        string readme = File.ReadAllText(Path.Combine(SourceTree.Root, "README.md"));
        string[] snippets = [.. Fence().Matches(readme).Select(match => match.Groups[1].Value)];
        Assert.NotEmpty(snippets);

        string folder = Directory.CreateTempSubdirectory("zengine-readme-").FullName;
        try
        {
            for (int i = 0; i < snippets.Length; i++)
            {
                string errors = Compile(compiler, Path.Combine(folder, $"snippet{i}"), snippets[i]);
                Assert.True(errors.Length == 0, $"README.md, C# snippet {i + 1} does not compile:\n{errors}");
            }
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>What the compiler had to say about a program, nothing when it is well.</summary>
    private static string Compile(string compiler, string name, string source)
    {
        File.WriteAllText(name + ".cs", source);
        File.WriteAllText(name + ".usings.cs", ImplicitUsings);
        // What this process may load is the framework and the engine.
        IEnumerable<string> references = ((string)AppContext.GetData("TRUSTED_PLATFORM_ASSEMBLIES")!).Split(Path.PathSeparator);
        File.WriteAllLines(name + ".rsp",
        [
            "/nologo", "/nostdlib+", "/target:exe", "/nullable:enable", "/langversion:14", "/warnaserror+", $"/out:\"{name}.dll\"",
            .. references.Select(reference => $"/reference:\"{reference}\""), $"\"{name}.cs\"", $"\"{name}.usings.cs\"",
        ]);
        var start = new ProcessStartInfo("dotnet") { RedirectStandardOutput = true };
        foreach (string argument in (string[])["exec", compiler, "/noconfig", $"@{name}.rsp"]) start.ArgumentList.Add(argument);
        using Process process = Process.Start(start)!;
        string text = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0 ? "" : text + $"exit code {process.ExitCode}";
    }

    [GeneratedRegex(@"^```csharp\s*\n(.*?)^```", RegexOptions.Singleline | RegexOptions.Multiline)]
    private static partial Regex Fence();
}
