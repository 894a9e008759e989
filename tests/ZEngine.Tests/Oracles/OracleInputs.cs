namespace ZEngine.Tests.Oracles;

/// <summary>The named inputs of one run: numbers of type T, and integers (targets, token ids, positions).</summary>
internal sealed class OracleInputs<T>(Dictionary<string, OracleTensor<T>> numbers, Dictionary<string, OracleTensor<long>> integers)
{
    public OracleTensor<T> this[string name] =>
        numbers.TryGetValue(name, out OracleTensor<T>? x) ? x : throw new KeyNotFoundException($"The case has no input '{name}'.");

    public OracleTensor<T>? Optional(string name) => numbers.GetValueOrDefault(name);

    public OracleTensor<long> Integers(string name) =>
        integers.TryGetValue(name, out OracleTensor<long>? x) ? x : throw new KeyNotFoundException($"The case has no integer input '{name}'.");

    public OracleTensor<long>? OptionalIntegers(string name) => integers.GetValueOrDefault(name);
}
