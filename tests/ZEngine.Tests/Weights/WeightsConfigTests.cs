using System.Globalization;
using System.Text;
using System.Text.Json;
using Xunit;
using ZEngine.Models;

namespace ZEngine.Tests.Weights;

/// <summary>Configuration files: typed reading, messages, unread keys, and Python's spelling.</summary>
public sealed class WeightsConfigTests
{
    private static ModelConfigFile Parse(string json) => ModelConfigFile.Parse(Encoding.UTF8.GetBytes(json));

    [Fact]
    public void Reads_every_type()
    {
        ModelConfigFile config = Parse("""
            {"i":7,"z":0,"n":-1,"f":1e-5,"whole":3,"t":true,"s":"silu","none":null,"ints":[5,11],"strings":["a","b"],"floats":[0,0.5],
             "eos":[2,7],"bos":1,"o":{"factor":8.0,"inner":{"x":1}},"empty":[]}
            """);
        Assert.Equal(7, config.Int("i"));
        Assert.Equal(0, config.Int("z", min: 0));
        Assert.Equal(-1, config.Int("n", min: int.MinValue));
        Assert.Equal(9, config.Int("absent", 9));
        Assert.Equal(9, config.Int("none", 9));
        Assert.Equal(-3, config.Int("absent", -3));
        Assert.Null(config.IntOrNull("none"));
        Assert.Equal(7, config.IntOrNull("i"));
        Assert.Equal(1e-5, config.Float("f"));
        Assert.Equal(3.0, config.Float("whole"));
        Assert.Equal(0.5, config.Float("absent", 0.5));
        Assert.True(config.Bool("t"));
        Assert.False(config.Bool("absent", false));
        Assert.Equal("silu", config.String("s"));
        Assert.Equal("gelu", config.String("none", "gelu"));
        Assert.Null(config.StringOrNull("none"));
        Assert.Equal([5, 11], config.IntList("ints"));
        Assert.Equal([], config.IntList("empty"));
        Assert.Equal([1], config.IntList("absent", [1]));
        Assert.Equal([2, 7], config.IntOrIntList("eos"));
        Assert.Equal([1], config.IntOrIntList("bos"));
        Assert.Equal(["a", "b"], config.StringList("strings"));
        Assert.Equal([0, 0.5], config.FloatList("floats"));
        Assert.Equal(8.0, config.Object("o").Float("factor"));
        Assert.Equal(1, config.Object("o").Object("inner").Int("x"));
        Assert.Null(config.ObjectOrNull("none"));
        Assert.True(config.Has("i"));
        Assert.False(config.Has("none"));
        Assert.Equal(JsonValueKind.Null, config.Kind("none"));
        Assert.Equal(JsonValueKind.Undefined, config.Kind("absent"));
    }

    [Theory]
    [InlineData("hidden_size must be a positive integer, got \"abc\".", "\"abc\"")]
    [InlineData("hidden_size must be a positive integer, got 0.", "0")]
    [InlineData("hidden_size must be a positive integer, got 2147483648.", "2147483648")]
    [InlineData("hidden_size must be a positive integer, got 2.0.", "2.0")]
    [InlineData("hidden_size must be a positive integer, got true.", "true")]
    [InlineData("hidden_size must be a positive integer, got null.", "null")]
    [InlineData("hidden_size must be a positive integer, got a list.", "[1]")]
    [InlineData("hidden_size must be a positive integer, got Infinity.", "Infinity")]
    public void Rejects_integer(string message, string value) =>
        Assert.Equal($"config.json: {message}", Fixtures.MessageOf<InvalidDataException>(() => Parse($$"""{"hidden_size":{{value}}}""").Int("hidden_size")));

    [Fact]
    public void Rejects_wrong_values_with_file_and_key()
    {
        ModelConfigFile config = Parse("""{"s":"x","i":5,"n":null,"big":1e999,"inf":Infinity,"l":[1,"x",-1],"o":{"factor":"8"}}""");
        void Check(string message, Action read) => Assert.Equal($"config.json: {message}", Fixtures.MessageOf<InvalidDataException>(read));
        Check("gone is missing; it must be a positive integer.", () => config.Int("gone"));
        Check("n must be a number, got null.", () => config.Float("n"));
        Check("s must be a non-negative integer, got \"x\".", () => config.Int("s", min: 0));
        Check("s must be an integer, got \"x\".", () => config.Int("s", min: int.MinValue));
        Check("i must be an integer of at least 6, got 5.", () => config.Int("i", min: 6));
        Check("i must be an integer from 1 to 4, got 5.", () => config.IntOrNull("i", max: 4));
        Check("i must be an integer of at most 4, got 5.", () => config.Int("i", min: int.MinValue, max: 4));
        Check("s must be a finite number, got \"x\".", () => config.Float("s"));
        Check("big is out of range: 1e999.", () => config.Float("big", allowNonFinite: true));
        Check("inf must be a finite number, got Infinity.", () => config.Float("inf"));
        Check("inf must be an object, got Infinity.", () => config.Object("inf"));
        Check("i must be true or false, got 5.", () => config.Bool("i"));
        Check("gone is missing; it must be true or false.", () => config.Bool("gone"));
        Check("i must be a string, got 5.", () => config.String("i"));
        Check("n must be a string, got null.", () => config.String("n"));
        Check("i must be a list of integers, got 5.", () => config.IntList("i"));
        Check("l[1] must be a non-negative integer, got \"x\".", () => config.IntList("l"));
        Check("l[0] must be a string, got 1.", () => config.StringList("l"));
        Check("l[1] must be a finite number, got \"x\".", () => config.FloatList("l"));
        Check("gone is missing; it must be a list of numbers.", () => config.FloatList("gone"));
        Check("gone is missing; it must be a list of strings.", () => config.StringList("gone"));
        Check("gone is missing; it must be a list of integers.", () => config.IntOrIntList("gone"));
        Check("gone is missing; it must be an object.", () => config.Object("gone"));
        Check("o.factor must be a finite number, got \"8\".", () => config.Object("o").Float("factor"));
        Check("o.factor must divide 8.", () => throw config.Object("o").Error("factor", "must divide 8."));
    }

    [Theory]
    [InlineData("{", "not valid JSON at line 1, byte 2.")]
    [InlineData("{\n\"a\": 1,}", "not valid JSON at line 2, byte 8.")]
    [InlineData("7", "must be a JSON object, got 7.")]
    [InlineData("{\"a\":1,\"a\":2}", "the key 'a' stands twice in one object.")]
    [InlineData("{\"o\":[{\"a\":1,\"a\":2}]}", "the key 'a' stands twice in one object.")]
    [InlineData("{\"a\":\"\\ud800\"}", "a string escapes half a surrogate pair.")]
    [InlineData("{\"a\":Infinity7}", "not valid JSON at line 1, byte 6.")]
    [InlineData("{\"a\":+Infinity}", "not valid JSON at line 1, byte 6.")]
    public void Rejects_text(string text, string message) =>
        Assert.Equal($"config.json: {message}", Fixtures.MessageOf<InvalidDataException>(() => Parse(text)));

    [Fact]
    public void Non_finite_numbers_are_read_in_every_spelling()
    {
        const string Text = """{"a":Infinity,"b":[0.0, -Infinity,NaN],"c":{"__float__":"Infinity"},"d":"Infinity, \"NaN\" -Infinity","NaN":1}""";
        ModelConfigFile config = Parse(Text);
        Assert.Equal(double.PositiveInfinity, config.Float("a", allowNonFinite: true));
        Assert.Equal([0, double.NegativeInfinity, double.NaN], config.FloatList("b", allowNonFinite: true));
        Assert.Equal(double.PositiveInfinity, config.Float("c", allowNonFinite: true));
        Assert.Equal("Infinity, \"NaN\" -Infinity", config.String("d"));
        Assert.Equal(1, config.Int("NaN"));
        Assert.Equal(Text, config.Text);
    }

    [Fact]
    public void Text_is_saved_as_it_came_with_byte_order_mark_and_line_ends()
    {
        using var folder = new TemporaryFolder();
        byte[] text = [0xEF, 0xBB, 0xBF, .. "{\r\n\t\"a\" : 1e0 }\r\n\r\n"u8];
        File.WriteAllBytes(folder["config.json"], text);
        ModelConfigFile config = ModelConfigFile.Open(folder["config.json"]);
        Assert.Equal(1.0, config.Float("a"));
        config.Save(folder["config.json"]);
        Assert.Equal(text, File.ReadAllBytes(folder["config.json"]));
        Assert.Equal(["config.json"], folder.Names);
    }

    [Fact]
    public void Unread_keys_are_those_nothing_asked_for()
    {
        ModelConfigFile config = Parse("""{"a":1,"b":null,"rope":{"x":1,"y":2},"other":{"z":1},"c":"s"}""");
        Assert.Equal(["a", "b", "rope", "other", "c"], config.UnreadKeys);
        _ = config.Int("a");
        _ = config.IntOrNull("b");
        _ = config.Object("rope").Int("x");
        _ = config.Has("c");
        Assert.Equal(["rope.y", "other", "c"], config.UnreadKeys);
        Assert.Throws<InvalidDataException>(() => config.Int("c"));
        Assert.Equal(["rope.y", "other"], config.UnreadKeys);
    }

    [Fact]
    public void New_file_is_spelled_as_python_does()
    {
        var values = new Dictionary<string, object?>
        {
            ["z"] = null, ["B"] = true, ["a"] = 1, ["long"] = 1L << 40, ["f"] = 1e-5f, ["inf"] = double.NegativeInfinity,
            ["list"] = new List<object?> { 1, "é\"\\\n\u007f" }, ["empty"] = Array.Empty<int>(), ["o"] = new Dictionary<string, object?> { ["k"] = 0.5 },
            ["nothing"] = new Dictionary<string, object?>(),
        };
        ModelConfigFile config = ModelConfigFile.Create(values);
        Assert.Equal("""
            {
              "B": true,
              "a": 1,
              "empty": [],
              "f": 1e-05,
              "inf": {
                "__float__": "-Infinity"
              },
              "list": [
                1,
                "\u00e9\"\\\n\u007f"
              ],
              "long": 1099511627776,
              "nothing": {},
              "o": {
                "k": 0.5
              },
              "z": null
            }

            """, config.Text);
        Assert.Equal(1e-5, config.Float("f"));
        Assert.Throws<ArgumentException>(() => ModelConfigFile.Create([new("a", 1m)]));
        Assert.Throws<ArgumentException>(() => ModelConfigFile.Create([new("a", 1), new("a", 2)]));
    }

    [Theory]
    // What Python's repr gives.
    [InlineData(0.0, "0.0"), InlineData(-0.0, "-0.0"), InlineData(1.0, "1.0"), InlineData(-2.5, "-2.5"), InlineData(0.1, "0.1"), InlineData(10000.0, "10000.0")]
    [InlineData(0.0001, "0.0001"), InlineData(0.00001, "1e-05"), InlineData(1.5e-7, "1.5e-07"), InlineData(1e-30, "1e-30"), InlineData(1e15, "1000000000000000.0")]
    [InlineData(1e16, "1e+16"), InlineData(1234567890123456.0, "1234567890123456.0"), InlineData(1.2345678901234567e19, "1.2345678901234567e+19")]
    [InlineData(5e-324, "5e-324"), InlineData(1.7976931348623157e308, "1.7976931348623157e+308"), InlineData(123.456, "123.456"), InlineData(0.000123, "0.000123")]
    public void Floats_are_spelled_as_python_does(double value, string expected)
    {
        Assert.Equal($$"""
            {
              "x": {{expected}}
            }

            """, ModelConfigFile.Create([new("x", value)]).Text);
        Assert.Equal(value, double.Parse(expected, CultureInfo.InvariantCulture));
    }
}
