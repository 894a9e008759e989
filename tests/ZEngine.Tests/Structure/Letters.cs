using System.Text.RegularExpressions;

namespace ZEngine.Tests.Structure;

/// <summary>Dimensions in contracts are letters of the project's table, words in lower case, numbers, or <c>...</c> in front.</summary>
public sealed partial class Letters
{
    private const string Table = "BLSDHPNQKEVRMG";

    [Fact]
    public void Contracts_use_letters_of_the_table()
    {
        SourceTree.Require();
        var faults = new List<string>();
        int checkedDims = 0;
        foreach (SourceFile file in SourceTree.Files("src/ZEngine/Ops", "*.cs"))
        foreach (Match call in Requirement().Matches(file.Text))
        foreach (Match literal in Literal().Matches(call.Groups["dims"].Value))
        {
            string dims = literal.Groups["text"].Value;
            if (dims.EndsWith('.') && dims != "...") continue;            // the message of a condition
            checkedDims++;
            if (!IsWellFormed(dims)) faults.Add($"{file.Name}: \"{dims}\" of {call.Groups["tensor"].Value}");
        }
        Assert.True(checkedDims >= 40, $"only {checkedDims} shapes found");
        if (faults.Count > 0) Assert.Fail(string.Join("; ", faults));
    }

    [Theory]
    [InlineData("B L H P", true)]
    [InlineData("... D", true)]
    [InlineData("...", true)]
    [InlineData("B K-1 D", true)]
    [InlineData("rows 3", true)]
    [InlineData("", true)]
    [InlineData("T", false)]
    [InlineData("B C", false)]
    [InlineData("D ...", false)]
    [InlineData("Rows", false)]
    [InlineData("B  L", false)]
    [InlineData("K+1", false)]
    public void Form_is_recognised(string dims, bool isWellFormed) => Assert.Equal(isWellFormed, IsWellFormed(dims));

    private static bool IsWellFormed(string dims) => dims.Length == 0 || dims.Split(' ').Index().All(dim => dim.Item switch
    {
        "..." => dim.Index == 0,
        [>= 'A' and <= 'Z'] or [>= 'A' and <= 'Z', '-', >= '1' and <= '9'] => Table.Contains(dim.Item[0]),
        _ => Word().IsMatch(dim.Item),
    });

    [GeneratedRegex(@"\.(Require|Optional|RequireFloat32|OptionalFloat32|RequireWeight|RequireIndex)\(\s*(?<tensor>[A-Za-z_][\w.!]*)\s*,(?<dims>[^;]*)\);")]
    private static partial Regex Requirement();

    [GeneratedRegex("(?<!\\$)\"(?<text>[^\"]*)\"")]
    private static partial Regex Literal();

    [GeneratedRegex("^([a-z]+|[0-9]+)$")]
    private static partial Regex Word();
}
