using ZEngine.Emulator;

namespace ZEngine.Tests.Emulator.Forms;

/// <summary>
/// What instruction forms must do, written from the PTX ISA and not from the handler, and a run that throws where the emulator does something
/// else.
/// </summary>
/// <param name="Name">Names it in a test.</param>
/// <param name="Forms">Opcodes with modifiers that it holds to their definition.</param>
/// <param name="Run">Compares; with few inputs when the flag is set.</param>
internal sealed record Oracle(string Name, IReadOnlyList<string> Forms, Action<EmulatorOptions, bool> Run);

/// <summary>A table of oracles, found by its type.</summary>
internal interface IOracleTable
{
    IEnumerable<Oracle> Oracles { get; }
}

internal static class OracleTables
{
    public static IReadOnlyDictionary<string, Oracle> All { get; } = Collect();

    /// <summary>Every form that has an oracle, with its oracles.</summary>
    public static ILookup<string, Oracle> ByForm { get; } = All.Values.SelectMany(oracle => oracle.Forms.Select(form => (form, oracle))).ToLookup(pair => pair.form, pair => pair.oracle);

    private static Dictionary<string, Oracle> Collect() =>
        (from type in typeof(OracleTables).Assembly.GetTypes()
         where type.IsAssignableTo(typeof(IOracleTable)) && !type.IsInterface
         orderby type.Name
         from oracle in ((IOracleTable)Activator.CreateInstance(type)!).Oracles
         select oracle).DistinctBy(oracle => oracle.Name).ToDictionary(oracle => oracle.Name);

    /// <summary>The forms in a piece of PTX: the first word of each statement.</summary>
    public static string[] FormsOf(string ptx) =>
    [
        .. (from statement in ptx.Split(';')
            let word = statement.Trim().TrimStart('{', '}', ' ').Split(' ', '\t', '\n').FirstOrDefault(w => w.Length > 0 && w[0] != '@' && !w.EndsWith(':'))
            where word is { Length: > 0 } && char.IsAsciiLetter(word[0])
            select word).Distinct(),
    ];
}

/// <summary>Every form equals its definition.</summary>
public sealed class OracleTests
{
    public static TheoryData<string> Names => [.. OracleTables.All.Keys];

    [Theory]
    [MemberData(nameof(Names))]
    public void Form_equals_its_definition(string name) => OracleTables.All[name].Run(new EmulatorOptions { Checks = EmulatorChecks.None }, false);
}
