using System.Buffers.Binary;
using System.Text;
using Xunit;
using ZEngine.Models;

namespace ZEngine.Tests.Weights;

/// <summary>
/// Mutated files, the same ones in every run: only the documented exception comes out, in one line, and what is accepted holds all
/// that a header promises.
/// </summary>
public sealed class WeightsFuzzTests
{
    private const int HeaderBytesRounds = 60_000;
    private const int HeaderTextRounds = 80_000;
    private const int IndexRounds = 30_000;
    private const int ConfigRounds = 30_000;

    private static readonly (string Header, int DataBytes)[] s_seeds =
    [
        ("{}", 0),
        ("""{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}       """, 24),
        ("""{"__metadata__":{"format":"pt"},"i":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},"w.0":{"dtype":"F32","shape":[2,2],"data_offsets":[16,32]},"w.1":{"dtype":"BF16","shape":[],"data_offsets":[32,34]}}""", 34),
        ("""{"n":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"e":{"dtype":"U8","shape":[0,4],"data_offsets":[0,0]},"\u00e9\n":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]},"f":{"dtype":"F4","shape":[2],"data_offsets":[3,4]}}""", 4),
    ];

    // Pieces of JSON that are wrong in their place, or right in another.
    private static readonly string[] s_values =
    [
        "0", "-1", "-0", "1", "2", "4", "8", "24", "1.5", "1e3", "2147483648", "4294967296", "2305843009213693952", "4611686018427387904", "9223372036854775807",
        "9223372036854775808", "18446744073709551616", "1e999", "null", "true", "\"\"", "\"F32\"", "\"BF16\"", "\"F64\"", "\"F6_E2M3\"", "\"Q4\"", "\"\\ud800\"", "\"\\u0000\"", "[]",
        "[0]", "[0,0]", "[4294967296,4294967296]", "[0,9223372036854775807,9223372036854775807]", "[24,0]", "[16,32]", "{}", "Infinity", "NaN", "-Infinity",
        "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}", "{\"__float__\":\"NaN\"}", "\"../x.safetensors\"", "\"b.safetensors\"",
    ];

    private static readonly string[] s_names = ["\"a\"", "\"w.0\"", "\"__metadata__\"", "\"dtype\"", "\"shape\"", "\"data_offsets\"", "\"weight_map\"", "\"metadata\"", "\"\\u0061\"", "\"\""];

    [Fact]
    public void Mutated_bytes_of_files()
    {
        var random = new Random(20_240_601);
        Tally tally = default;
        for (int round = 0; round < HeaderBytesRounds; round++)
        {
            (string header, int dataBytes) = s_seeds[random.Next(s_seeds.Length)];
            byte[] file = MutateBytes(Fixtures.File(header, dataBytes), random);
            if (random.Next(4) == 0 && file.Length >= 8) BinaryPrimitives.WriteUInt64LittleEndian(file, AbsurdLength(random, file.Length));
            tally.Count(() => RequireInvariants(Fixtures.ParseFile(file), file));
        }
        tally.RequireBoth();
    }

    [Fact]
    public void Mutated_structure_of_headers()
    {
        var random = new Random(20_240_602);
        Tally tally = default;
        for (int round = 0; round < HeaderTextRounds; round++)
        {
            (string header, int dataBytes) = s_seeds[random.Next(s_seeds.Length)];
            byte[] file = Fixtures.File(MutateJson(header, random), random.Next(4) == 0 ? random.Next(64) : dataBytes);
            tally.Count(() => RequireInvariants(Fixtures.ParseFile(file), file));
        }
        tally.RequireBoth();
    }

    [Fact]
    public void Mutated_indexes()
    {
        const string Seed = """{"metadata":{"total_size":48},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors","c":"model-00002-of-00002.safetensors"}}""";
        var random = new Random(20_240_603);
        Tally tally = default;
        for (int round = 0; round < IndexRounds; round++)
        {
            byte[] text = random.Next(2) == 0 ? MutateBytes(Encoding.UTF8.GetBytes(Seed), random) : Encoding.UTF8.GetBytes(MutateJson(Seed, random));
            tally.Count(() =>
            {
                WeightIndex index = WeightIndex.Parse(text, "i.json");
                Assert.NotEmpty(index.Shards);
                Assert.All(index.Shards, shard =>
                {
                    Assert.EndsWith(".safetensors", shard, StringComparison.Ordinal);
                    Assert.Equal("/folder", Path.GetDirectoryName(Path.GetFullPath(Path.Combine("/folder", shard))));
                });
                Assert.Equal(text, index.Text);
            });
        }
        tally.RequireBoth();
    }

    [Fact]
    public void Mutated_configurations()
    {
        const string Seed = """{"hidden_size":32,"eps":1e-05,"limit":[0.0,Infinity],"old":{"__float__":"Infinity"},"layers":["mamba","hybrid"],"ids":[1,2],"rope_parameters":{"rope_type":"default","rope_theta":10000.0},"tie":false,"pad":null}""";
        var random = new Random(20_240_604);
        Tally tally = default;
        for (int round = 0; round < ConfigRounds; round++)
        {
            byte[] text = random.Next(2) == 0 ? MutateBytes(Encoding.UTF8.GetBytes(Seed), random) : Encoding.UTF8.GetBytes(MutateJson(Seed, random));
            tally.Count(() =>
            {
                ModelConfigFile config = ModelConfigFile.Parse(text);
                Assert.Equal(config.Keys, config.UnreadKeys);
                Assert.InRange(config.Int("hidden_size"), 1, int.MaxValue);
                Assert.True(double.IsFinite(config.Float("eps")));
                _ = config.FloatList("limit", allowNonFinite: true);
                _ = config.Float("old", allowNonFinite: true);
                _ = config.StringList("layers");
                Assert.All(config.IntOrIntList("ids", []), id => Assert.True(id >= 0));
                _ = config.ObjectOrNull("rope_parameters")?.Float("rope_theta", 1);
                _ = config.Bool("tie", true);
                _ = config.IntOrNull("pad");
                Assert.DoesNotContain("hidden_size", config.UnreadKeys);
            });
        }
        tally.RequireBoth();
    }

    private static void RequireInvariants(SafetensorsHeader header, byte[] file)
    {
        long data = file.Length - 8 - BinaryPrimitives.ReadInt64LittleEndian(file);
        long covered = 0;
        var names = new HashSet<string>();
        foreach (SafetensorsEntry entry in header.Entries)
        {
            Assert.True(names.Add(entry.Name));
            Assert.Equal(covered, entry.ByteOffset);
            UInt128 elements = 1;
            foreach (long size in entry.Shape)
            {
                Assert.True(size >= 0);
                elements *= (UInt128)size;
            }
            Assert.Equal(elements * (UInt128)SafetensorsDTypes.Bits(entry.DTypeName), (UInt128)entry.ByteCount * 8);
            if (entry.DType is DType dtype) Assert.Equal(dtype.Size * 8, SafetensorsDTypes.Bits(entry.DTypeName));
            covered += entry.ByteCount;
        }
        Assert.Equal(data, covered);
    }

    private static byte[] MutateBytes(byte[] file, Random random)
    {
        var bytes = new List<byte>(file);
        for (int edits = random.Next(3); edits >= 0; edits--)
        {
            int at = random.Next(bytes.Count + 1);
            switch (random.Next(6))
            {
                case 0 when at < bytes.Count: bytes[at] ^= (byte)(1 << random.Next(8)); break;
                case 1 when at < bytes.Count: bytes[at] = (byte)random.Next(256); break;
                case 2: bytes.RemoveRange(at, bytes.Count - at); break;
                case 3: bytes.Insert(at, (byte)random.Next(256)); break;
                case 4 when at < bytes.Count: bytes.RemoveRange(at, random.Next(Math.Min(8, bytes.Count - at)) + 1); break;
                default: bytes.InsertRange(at, bytes.GetRange(0, Math.Min(bytes.Count, random.Next(24)))); break;
            }
        }
        return [.. bytes];
    }

    private static ulong AbsurdLength(Random random, int fileBytes) => random.Next(6) switch
    {
        0 => ulong.MaxValue,
        1 => 1UL << 63,
        2 => 100_000_001,
        3 => (ulong)fileBytes,
        4 => (ulong)Math.Max(0, fileBytes - 8),
        _ => (ulong)random.Next(Math.Max(1, fileBytes)),
    };

    /// <summary>Swaps, drops, doubles and replaces whole values and names, or buries them in nesting.</summary>
    private static string MutateJson(string json, Random random)
    {
        for (int edits = random.Next(2); edits >= 0; edits--)
        {
            List<(int Start, int End)> pieces = Pieces(json);
            (int start, int end) = pieces[random.Next(pieces.Count)];
            string piece = json[start..end];
            string other = json[pieces[random.Next(pieces.Count)] is var place ? place.Start..place.End : ..];
            string replacement = random.Next(8) switch
            {
                0 => other,
                1 => s_names[random.Next(s_names.Length)],
                2 => $"{piece},{piece}",
                3 => "",
                4 => Nested(piece, random.Next(80)),
                5 when long.TryParse(piece, out long number) => (number + random.Next(-4, 5)).ToString(System.Globalization.CultureInfo.InvariantCulture),
                _ => s_values[random.Next(s_values.Length)],
            };
            json = string.Concat(json.AsSpan(0, start), replacement, json.AsSpan(end));
        }
        return json;
    }

    private static string Nested(string piece, int depth) => depth % 2 == 0
        ? new string('[', depth) + piece + new string(']', depth)
        : string.Concat(Enumerable.Repeat("{\"x\":", depth)) + piece + new string('}', depth);

    /// <summary>Where values, names and bracketed groups stand in the text; of damaged text, what can be made out.</summary>
    private static List<(int Start, int End)> Pieces(string json)
    {
        var pieces = new List<(int, int)> { (0, json.Length) };
        var open = new Stack<int>();
        for (int i = 0; i < json.Length; i++)
        {
            if (json[i] is '{' or '[')
            {
                open.Push(i);
            }
            else if (json[i] is '}' or ']')
            {
                if (open.TryPop(out int start)) pieces.Add((start, i + 1));
            }
            else if (json[i] == '"' || char.IsAsciiLetterOrDigit(json[i]) || json[i] == '-')
            {
                int end = i + 1;
                if (json[i] == '"')
                {
                    while (end < json.Length && json[end] != '"') end += json[end] == '\\' ? 2 : 1;
                    end = Math.Min(end + 1, json.Length);
                }
                else
                {
                    while (end < json.Length && (char.IsAsciiLetterOrDigit(json[end]) || json[end] is '.' or '-' or '+')) end++;
                }
                pieces.Add((i, end));
                i = end - 1;
            }
        }
        return pieces;
    }

    private struct Tally
    {
        private int _accepted;
        private int _rejected;

        public void Count(Action parse)
        {
            try
            {
                parse();
                _accepted++;
            }
            catch (InvalidDataException e)
            {
                Assert.DoesNotContain('\n', e.Message);
                Assert.InRange(e.Message.Length, 10, 1000);
                _rejected++;
            }
        }

        // A mutator that only breaks, or never does, tests nothing.
        public readonly void RequireBoth()
        {
            Assert.True(_accepted > 100, $"{_accepted} accepted, {_rejected} rejected");
            Assert.True(_rejected > 1000, $"{_accepted} accepted, {_rejected} rejected");
        }
    }
}
