using System.Reflection;
using System.Text.RegularExpressions;

namespace ZEngine.Tests.Structure;

/// <summary>Habits of files.</summary>
public sealed partial class Files
{
    private const int MostLines = 500, FirstLines = 6;

    [Fact]
    public void File_carries_the_name_of_a_type_in_it()
    {
        SourceTree.Require();
        SourceFile[] files = [.. SourceTree.Files("src", "*.cs")];
        var stems = files.Select(file => file.Stem).ToHashSet();
        string[] faults =
        [
            .. from file in files
               let types = TypeDeclaration().Matches(file.Text)
               where types.Count > 0 && !types.Any(type => Bare(type.Groups["name"].Value) == Bare(file.Stem))
               // Several small kindred types in one file: its first line says what they are.
               where !file.Lines[0].StartsWith("//", StringComparison.Ordinal)
               // A room of an op, or a further part of a type that has a file of its own.
               where !types.Any(type => type.Groups["partial"].Success && (stems.Contains(type.Groups["name"].Value) || type.Groups["name"].Value == "Ops"))
               select $"{file.Name} holds {string.Join(", ", types.Select(type => type.Groups["name"].Value))}",
        ];
        if (faults.Length > 0) Assert.Fail(string.Join("; ", faults));
    }

    [Fact]
    public void Long_file_says_why()
    {
        SourceTree.Require();
        string[] faults =
        [
            .. from folder in (string[])["src", "kernels", "tests", "bench"]
               from file in SourceTree.Files(folder, "*.cs").Concat(SourceTree.Files(folder, "*.cu")).Concat(SourceTree.Files(folder, "*.cuh"))
               let lines = file.Lines
               where lines.Length > MostLines && !lines.Take(FirstLines).Any(line => line.StartsWith("//", StringComparison.Ordinal))
               select $"{file.Name} has {lines.Length} lines and does not say why",
        ];
        if (faults.Length > 0) Assert.Fail(string.Join("; ", faults));
    }

    [Fact]
    public void Nothing_is_left_for_later()
    {
        SourceTree.Require();
        string[] faults =
        [
            .. from file in SourceTree.Files("src", "*.cs").Concat(SourceTree.Files("kernels", "*.cu*"))
               from line in file.Lines.Index()
               where Later().IsMatch(line.Item)
               select $"{file.Name}({line.Index + 1}): {line.Item.Trim()}",
        ];
        if (faults.Length > 0) Assert.Fail(string.Join("; ", faults));
    }

    /// <summary>So that the filter <c>Golden</c> runs the recorded cases and nothing else.</summary>
    [Fact]
    public void Tests_named_after_recorded_cases_are_in_classes_that_end_so()
    {
        string[] faults =
        [
            .. from type in typeof(Files).Assembly.GetTypes()
               from method in type.GetMethods()
               where method.GetCustomAttributes<FactAttribute>().Any()
               let name = $"{type.FullName}.{method.Name}"
               where name.Contains("golden", StringComparison.OrdinalIgnoreCase) && !type.Name.EndsWith("Golden", StringComparison.Ordinal)
               select name,
        ];
        if (faults.Length > 0) Assert.Fail(string.Join("; ", faults));
    }

    /// <summary>The stem of <c>CpuPointwise</c>, <c>IPointwise</c> and <c>ICpuPointwise</c>.</summary>
    private static string Bare(string name) => Prefix().Replace(name, "");

    [GeneratedRegex("^I?(Cpu)?(?=[A-Z])")]
    private static partial Regex Prefix();

    [GeneratedRegex(@"^(?:(?:public|internal|file|static|sealed|abstract|readonly|unsafe|ref|(?<partial>partial)) )*(?:class|struct|interface|enum|record struct|record|delegate [\w<>?\[\]]+) (?<name>\w+)", RegexOptions.Multiline)]
    private static partial Regex TypeDeclaration();

    [GeneratedRegex(@"\b(TODO|FIXME|NotImplementedException)\b")]
    private static partial Regex Later();
}
