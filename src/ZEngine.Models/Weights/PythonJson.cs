using System.Collections;
using System.Globalization;
using System.Text;
using System.Text.Json;

namespace ZEngine.Models;

/// <summary>JSON as Python's <c>json.dumps(value, indent=2, sort_keys=True)</c> spells it, which is how checkpoints are written.</summary>
/// <remarks>Keys in the order of code points, everything but ASCII escaped, floats in the shortest form that reads back equal.</remarks>
internal static class PythonJson
{
    /// <summary>The text with the final newline of checkpoint files.</summary>
    /// <param name="values">
    /// Null, bool, int, long, float, double, string, a <see cref="JsonElement"/>, a list of these, or a dictionary from string to these.
    /// Non-finite numbers become <c>{"__float__": "Infinity"}</c>, as transformers 5 writes them.
    /// </param>
    public static string Document(IEnumerable<KeyValuePair<string, object?>> values)
    {
        var text = new StringBuilder();
        WriteObject(text, values, 0);
        return text.Append('\n').ToString();
    }

    private static void Write(StringBuilder text, object? value, int indent)
    {
        switch (value)
        {
            case null: text.Append("null"); break;
            case bool flag: text.Append(flag ? "true" : "false"); break;
            case int or long: text.Append(((IConvertible)value).ToInt64(CultureInfo.InvariantCulture)); break;
            case float number: WriteFloat(text, number, number.ToString("R", CultureInfo.InvariantCulture), indent); break;
            case double number: WriteFloat(text, number, number.ToString("R", CultureInfo.InvariantCulture), indent); break;
            case string words: WriteString(text, words); break;
            case JsonElement element: WriteElement(text, element, indent); break;
            case IEnumerable<KeyValuePair<string, object?>> members: WriteObject(text, members, indent); break;
            case IEnumerable items: WriteList(text, items, indent); break;
            default: throw new ArgumentException($"A {value.GetType().Name} has no place in a configuration; use null, bool, int, long, float, double, string, lists and dictionaries of these.");
        }
    }

    private static void WriteElement(StringBuilder text, JsonElement element, int indent)
    {
        switch (element.ValueKind)
        {
            case JsonValueKind.Object: WriteObject(text, element.EnumerateObject().Select(member => new KeyValuePair<string, object?>(member.Name, member.Value)), indent); break;
            case JsonValueKind.Array: WriteList(text, element.EnumerateArray(), indent); break;
            case JsonValueKind.String: WriteString(text, element.GetString()!); break;
            default: text.Append(element.GetRawText()); break;
        }
    }

    private static void WriteObject(StringBuilder text, IEnumerable<KeyValuePair<string, object?>> members, int indent)
    {
        KeyValuePair<string, object?>[] sorted = [.. members.OrderBy(member => member.Key, Utf8Order.Instance)];
        for (int i = 0; i < sorted.Length; i++)
        {
            if (i > 0 && sorted[i].Key == sorted[i - 1].Key) throw new ArgumentException($"The key {WeightErrors.Quote(sorted[i].Key)} is given twice.");
            text.Append(i == 0 ? "{\n" : ",\n").Append(' ', indent + 2);
            WriteString(text, sorted[i].Key);
            text.Append(": ");
            Write(text, sorted[i].Value, indent + 2);
        }
        if (sorted.Length == 0) text.Append("{}");
        else text.Append('\n').Append(' ', indent).Append('}');
    }

    private static void WriteList(StringBuilder text, IEnumerable items, int indent)
    {
        bool isEmpty = true;
        foreach (object? item in items)
        {
            text.Append(isEmpty ? "[\n" : ",\n").Append(' ', indent + 2);
            Write(text, item, indent + 2);
            isEmpty = false;
        }
        if (isEmpty) text.Append("[]");
        else text.Append('\n').Append(' ', indent).Append(']');
    }

    private static void WriteFloat(StringBuilder text, double value, string shortest, int indent)
    {
        if (!double.IsFinite(value))
        {
            string name = double.IsNaN(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
            WriteObject(text, [new("__float__", name)], indent);
            return;
        }
        if (value == 0)
        {
            text.Append(double.IsNegative(value) ? "-0.0" : "0.0");
            return;
        }
        (string digits, int exponent) = Decimal(shortest);
        if (value < 0) text.Append('-');
        if (exponent is < -4 or >= 16)   // where Python leaves the plain form
        {
            text.Append(digits[0]);
            if (digits.Length > 1) text.Append('.').Append(digits, 1, digits.Length - 1);
            text.Append(exponent < 0 ? "e-" : "e+").Append(CultureInfo.InvariantCulture, $"{Math.Abs(exponent):00}");
        }
        else if (exponent < 0)
        {
            text.Append("0.").Append('0', -exponent - 1).Append(digits);
        }
        else
        {
            string whole = digits.Length > exponent ? digits[..(exponent + 1)] : digits.PadRight(exponent + 1, '0');
            string fraction = digits.Length > exponent + 1 ? digits[(exponent + 1)..] : "0";
            text.Append(whole).Append('.').Append(fraction);
        }
    }

    /// <summary>Significant digits d₀d₁d₂… and the power of ten of d₀.</summary>
    private static (string Digits, int Exponent) Decimal(string shortest)
    {
        string plain = shortest.TrimStart('-');
        int mark = plain.IndexOf('E', StringComparison.Ordinal);
        int power = mark < 0 ? 0 : int.Parse(plain.AsSpan(mark + 1), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture);
        string mantissa = mark < 0 ? plain : plain[..mark];
        int point = mantissa.IndexOf('.', StringComparison.Ordinal);
        int wholeDigits = point < 0 ? mantissa.Length : point;
        string all = mantissa.Replace(".", "", StringComparison.Ordinal);
        int leadingZeros = all.Length - all.TrimStart('0').Length;
        return (all.Trim('0'), power + wholeDigits - 1 - leadingZeros);
    }

    /// <summary>A string as Python escapes it: everything but printable ASCII as <c>\uXXXX</c> in lower case.</summary>
    private static void WriteString(StringBuilder text, string value)
    {
        text.Append('"');
        foreach (char c in value)
        {
            switch (c)
            {
                case '"': text.Append("\\\""); break;
                case '\\': text.Append("\\\\"); break;
                case '\n': text.Append("\\n"); break;
                case '\r': text.Append("\\r"); break;
                case '\t': text.Append("\\t"); break;
                case '\f': text.Append("\\f"); break;
                case '\b': text.Append("\\b"); break;
                case >= ' ' and <= '~': text.Append(c); break;
                default: text.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:x4}"); break;
            }
        }
        text.Append('"');
    }
}
