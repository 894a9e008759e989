using System.Xml.Linq;

namespace ZEngine.Tests.Structure;

/// <summary>Who may know whom.</summary>
public sealed class Directions
{
    /// <summary>For each project, those below it.</summary>
    private static readonly Dictionary<string, string[]> Below = new()
    {
        ["ZEngine"] = ["ZEngine.Interop"],
        ["ZEngine.Interop"] = [],
        ["ZEngine.Cuda"] = ["ZEngine", "ZEngine.Interop"],
        ["ZEngine.Emulator"] = ["ZEngine.Interop"],
        ["ZEngine.Distributed"] = ["ZEngine", "ZEngine.Interop"],
        ["ZEngine.Models"] = ["ZEngine"],
        ["ZEngine.Training"] = ["ZEngine.Models", "ZEngine.Interop", "ZEngine"],
        ["ZEngine.Cli"] = ["ZEngine.Training", "ZEngine.Models", "ZEngine.Distributed", "ZEngine.Cuda", "ZEngine.Emulator", "ZEngine.Interop", "ZEngine"],
        ["ZEngine.Bench"] = ["ZEngine.Training", "ZEngine.Models", "ZEngine.Cuda", "ZEngine.Emulator", "ZEngine.Interop", "ZEngine"],
    };

    [Fact]
    public void Project_references_point_down()
    {
        SourceTree.Require();
        var faults = new List<string>();
        foreach (SourceFile project in Projects("src").Concat(Projects("bench")))
        {
            if (!Below.TryGetValue(project.Stem, out string[]? below)) faults.Add($"{project.Name} is not in the table of projects");
            else faults.AddRange(from name in References(project, "ProjectReference").Select(path => Path.GetFileNameWithoutExtension(path.Replace('\\', '/')))
                                 where !below.Contains(name) select $"{project.Stem} must not know {name}");
        }
        if (faults.Count > 0) Assert.Fail(string.Join("; ", faults));
    }

    [Theory, InlineData("ZEngine"), InlineData("ZEngine.Interop"), InlineData("ZEngine.Models")]
    public void Needs_no_package(string name)
    {
        SourceTree.Require();
        foreach (SourceFile project in Projects("src").Where(project => project.Stem == name))
            Assert.Empty(References(project, "PackageReference"));
    }

    [Fact]
    public void Native_calls_stand_in_Interop()
    {
        SourceTree.Require();
        string[] words = ["LibraryImport", "DllImport", "NativeLibrary.", "delegate* unmanaged"];
        NoneContains(words, file => file.Project != "ZEngine.Interop");
    }

    [Fact]
    public void Nothing_asks_which_driver_it_has()
    {
        SourceTree.Require();
        NoneContains(["emulat"], file => file.Project is not ("ZEngine.Emulator" or "ZEngine.Cli"));
    }

    private static IEnumerable<SourceFile> Projects(string folder) => SourceTree.Files(folder, "*.csproj");

    private static IEnumerable<string> References(SourceFile project, string kind) =>
        XDocument.Parse(project.Text).Descendants(kind).Select(reference => reference.Attribute("Include")!.Value);

    private static void NoneContains(string[] words, Func<SourceFile, bool> applies)
    {
        string[] faults =
        [
            .. from file in SourceTree.Files("src", "*.cs")
               where applies(file)
               from line in file.Lines.Index()
               from word in words
               where line.Item.Contains(word, StringComparison.OrdinalIgnoreCase)
               select $"{file.Name}({line.Index + 1}) says '{word}'",
        ];
        if (faults.Length > 0) Assert.Fail(string.Join("; ", faults));
    }
}
