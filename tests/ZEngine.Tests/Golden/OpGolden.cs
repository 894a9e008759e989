using ZEngine.Tests.Ops;
using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Golden;

/// <summary>What other implementations computed, op by op. A new folder under the golden folder's <c>ops</c> is a new case.</summary>
public sealed class OpGolden
{
    public static IEnumerable<TheoryDataRow<string, string>> Cases() =>
        from name in OpCase.GoldenNames()
        where EngineOp.For(OpCase.Golden(name).Op) is not null
        from device in Devices.OpNames
        where EngineOp.Takes(OpCase.Golden(name).Op, device)
        select new TheoryDataRow<string, string>(name, device) { TestDisplayName = $"Golden op {name} on {device}" };

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Cases))]
    public void Case_is_reproduced(string name, string device) => EngineOp.Check(OpCase.Golden(name), device);
}
