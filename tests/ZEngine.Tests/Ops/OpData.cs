using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Ops;

/// <summary>Cases of an op times devices.</summary>
internal static class OpData
{
    public static IEnumerable<TheoryDataRow<OpCase, string>> Times(IEnumerable<OpCase> cases) =>
        from c in cases from device in Devices.OpNames where EngineOp.Takes(c.Op, device) select new TheoryDataRow<OpCase, string>(c, device) { TestDisplayName = $"{c.Name} on {device}" };

    public static CaseBuilder Case(string op, string reason, int seed = 1) => new(op, reason, seed);
}
