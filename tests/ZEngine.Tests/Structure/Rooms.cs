namespace ZEngine.Tests.Structure;

/// <summary>An op has the same stem in every room: contract, CPU, tests, bench and, with a CUDA device, launch and kernel.</summary>
public sealed class Rooms
{
    /// <summary>What a kernel file may be split by, from the end of its name: direction, then stage or what its tiles are made of.</summary>
    private static readonly string[] Stages = ["Reference", "Float", "Forward", "Backward", "State", "Chunk", "Sum", "Step"];

    [Fact]
    public void Every_op_has_all_its_rooms()
    {
        SourceTree.Require();
        string[] ops = [.. SourceTree.Files("src/ZEngine/Ops", "*.cs").Select(file => file.Stem)];
        Assert.True(ops.Length >= 14, $"only {ops.Length} contracts in src/ZEngine/Ops");
        bool hasCuda = SourceTree.Files("src/ZEngine.Cuda", "*.cs").Any();
        string[] missing = [.. ops.SelectMany(op => RoomsOf(op, hasCuda)).Where(room => !room.Any(SourceTree.Exists)).Select(room => room[0])];
        if (missing.Length > 0) Assert.Fail($"missing {string.Join(", ", missing)}");
    }

    [Fact]
    public void Every_room_has_a_contract()
    {
        SourceTree.Require();
        string[] orphans =
        [
            .. Without("kernels", "*.cu", name => Stages.Aggregate(name, Cut)).Where(name => !name.Contains("/common/", StringComparison.Ordinal)),
            .. Without("src/ZEngine.Cuda/Ops", "Cuda*.cs", name => Stages.Aggregate(name["Cuda".Length..], Cut)),
            .. Without("tests/ZEngine.Tests/Ops", "*Tests.cs", name => Cut(Cut(name, "Tests"), "Kernel")),
            .. Without("bench/ZEngine.Bench/Ops", "*Bench.cs", name => Cut(name, "Bench")),
        ];
        if (orphans.Length > 0) Assert.Fail($"no contract in src/ZEngine/Ops for {string.Join(", ", orphans)}");
    }

    private static IEnumerable<string> Without(string folder, string pattern, Func<string, string> op) =>
        from file in SourceTree.Files(folder, pattern) where !SourceTree.Exists($"src/ZEngine/Ops/{op(file.Stem)}.cs") select file.Name;

    private static string Cut(string name, string end) => name.EndsWith(end, StringComparison.Ordinal) ? name[..^end.Length] : name;

    /// <summary>Each room with the names it may have; a big kernel file may be split by direction and stage.</summary>
    private static IEnumerable<string[]> RoomsOf(string op, bool hasCuda)
    {
        yield return [$"src/ZEngine/Cpu/Cpu{op}.cs"];
        yield return [$"tests/ZEngine.Tests/Ops/{op}Tests.cs"];
        yield return [$"bench/ZEngine.Bench/Ops/{op}Bench.cs"];
        if (!hasCuda) yield break;
        yield return [$"src/ZEngine.Cuda/Ops/Cuda{op}.cs"];
        yield return [$"kernels/{op}.cu", $"kernels/{op}Forward.cu"];
    }
}
