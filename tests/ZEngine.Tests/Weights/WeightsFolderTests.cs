using System.Text;
using Xunit;
using ZEngine.Models;

namespace ZEngine.Tests.Weights;

/// <summary>Checkpoint folders: shards and index agree, or opening says where they do not.</summary>
public sealed class WeightsFolderTests
{
    private const string One = "model-00001-of-00003.safetensors";
    private const string Two = "model-00002-of-00003.safetensors";
    private const string Three = "model-00003-of-00003.safetensors";

    // In this order and with 10 bytes to a shard: b and a, then the oversized big, then c.
    private static SafetensorsTensor[] Tensors =>
        [Fixtures.Bytes("b", 1, 2, 3, 4), Fixtures.Floats("big", 1, 2, 3, 4), Fixtures.Floats("a", 5), Fixtures.Bytes("c", 6, 7, 8)];

    private static void SaveShards(TemporaryFolder folder) => WeightFiles.Save(folder.Path, Tensors, maxShardBytes: 10);

    [Fact]
    public void New_shards_are_split_named_and_indexed_as_the_reference_does()
    {
        using var folder = new TemporaryFolder();
        SaveShards(folder);
        Assert.Equal([One, Two, Three, "model.safetensors.index.json"], folder.Names);
        // An oversized tensor does not wait for the open shard, so it comes first.
        Assert.Equal($$"""
            {
              "metadata": {
                "total_size": 27
              },
              "weight_map": {
                "a": "{{Two}}",
                "b": "{{Two}}",
                "big": "{{One}}",
                "c": "{{Three}}"
              }
            }

            """, File.ReadAllText(folder["model.safetensors.index.json"]));

        using WeightFiles weights = WeightFiles.Open(folder.Path);
        Assert.True(weights.Layout.IsSharded);
        Assert.Equal([One, Two, Three], weights.Layout.FileNames);
        Assert.Equal(["big", "a", "b", "c"], weights.Names);
        Assert.All(weights.Files, file => Assert.Equal("pt", file.Metadata["format"]));
        Assert.True(weights.TryGet("c", out SafetensorsFile? holder, out SafetensorsEntry? entry));
        Assert.Equal([6, 7, 8], holder.Bytes(entry).ToArray());
        (SafetensorsFile File, SafetensorsEntry Entry) a = weights.Get("a");
        Assert.Equal(5f, BitConverter.ToSingle(a.File.Bytes(a.Entry)));
        Assert.False(weights.TryGet("d", out _, out _));
        Assert.Equal($"{folder.Path}: no tensor 'd' in 3 shards.", Fixtures.MessageOf<InvalidDataException>(() => weights.Get("d")));
    }

    [Fact]
    public void Shards_with_foreign_formatting_are_saved_byte_for_byte()
    {
        using var folder = new TemporaryFolder();
        string header = """{ "y":{"shape":[2],"data_offsets":[0,2],"dtype":"U8"}, "__metadata__":{"q":"1","p":"2"}, "x":{"dtype":"F32","shape":[1],"data_offsets":[2,6]} }  """;
        byte[] first = Fixtures.File(header, 6);
        first[^3] = 99;
        File.WriteAllBytes(folder["weird name.safetensors"], first);
        SafetensorsWriter.Write(folder["b.safetensors"], [Fixtures.Bytes("z", 3)]);
        string index = """{"weight_map":{"z":"b.safetensors","x":"weird name.safetensors","y":"weird name.safetensors"},"extra":[1],"metadata":{"total_size":1e9}}""";
        File.WriteAllText(folder["model.safetensors.index.json"], index);

        using WeightFiles weights = WeightFiles.Open(folder.Path);
        WeightFiles.Save(folder["copy"], [.. Fixtures.TensorsOf(weights).Reverse()], weights.Layout);
        foreach (string name in folder.Names) Assert.Equal(File.ReadAllBytes(folder[name]), File.ReadAllBytes(folder["copy/" + name]));
        Assert.Equal(folder.Names, Directory.GetFiles(folder["copy"]).Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal));

        // One changed type: its file and the index's total are made anew, assignment and metadata stay.
        SafetensorsTensor[] changed = [.. Fixtures.TensorsOf(weights).Where(tensor => tensor.Name != "x"), SafetensorsTensor.FromStream("x", DType.BFloat16, [1], stream => stream.Write([1, 2]))];
        WeightFiles.Save(folder["cast"], changed, weights.Layout);
        Assert.Equal("{\n  \"metadata\": {\n    \"total_size\": 5\n  },\n  \"weight_map\": {\n    \"x\": \"weird name.safetensors\",\n    \"y\": \"weird name.safetensors\",\n    \"z\": \"b.safetensors\"\n  }\n}\n",
            File.ReadAllText(folder["cast/model.safetensors.index.json"]));
        Assert.Equal(File.ReadAllBytes(folder["b.safetensors"]), File.ReadAllBytes(folder["cast/b.safetensors"]));
        using WeightFiles cast = WeightFiles.Open(folder["cast"]);
        Assert.Equal(DType.BFloat16, cast.Get("x").Entry.DType);
        Assert.Equal(["q", "p"], cast.Get("x").File.Metadata.Keys);
    }

    [Fact]
    public void Saving_over_a_mapped_checkpoint_removes_what_no_longer_belongs()
    {
        using var folder = new TemporaryFolder();
        SaveShards(folder);
        File.WriteAllText(folder["model-notes-of-mine.safetensors"], "kept");
        using (WeightFiles weights = WeightFiles.Open(folder.Path)) WeightFiles.Save(folder.Path, Fixtures.TensorsOf(weights));
        Assert.Equal(["model-notes-of-mine.safetensors", "model.safetensors"], folder.Names);
        using (WeightFiles weights = WeightFiles.Open(folder.Path)) WeightFiles.Save(folder.Path, Fixtures.TensorsOf(weights), maxShardBytes: 24);
        Assert.Equal(["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model-notes-of-mine.safetensors", "model.safetensors.index.json"], folder.Names);
        using WeightFiles again = WeightFiles.Open(folder.Path);
        Assert.Equal(4, again.Names.Count);
    }

    [Fact]
    public void Failed_save_leaves_the_checkpoint_as_it_was()
    {
        using var folder = new TemporaryFolder();
        SaveShards(folder);
        byte[][] before = [.. folder.Names.Select(name => File.ReadAllBytes(folder[name]))];
        string[] names = folder.Names;
        SafetensorsTensor failing = SafetensorsTensor.FromStream("e", DType.UInt8, [1], _ => throw new IOException("no more"));
        Assert.Throws<IOException>(() => WeightFiles.Save(folder.Path, [.. Tensors, failing], maxShardBytes: 10));
        Assert.Equal(names, folder.Names);
        Assert.Equal(before, folder.Names.Select(name => File.ReadAllBytes(folder[name])));
    }

    [Fact]
    public void Layout_wants_exactly_its_names()
    {
        using var folder = new TemporaryFolder();
        SaveShards(folder);
        using WeightFiles weights = WeightFiles.Open(folder.Path);
        SafetensorsTensor[] all = Fixtures.TensorsOf(weights);
        Assert.StartsWith($"Tensor 'big' of {One} is missing.", Fixtures.MessageOf<ArgumentException>(() => WeightFiles.Save(folder.Path, all[1..], weights.Layout)), StringComparison.Ordinal);
        Assert.StartsWith("Tensor 'd' is not in the layout.", Fixtures.MessageOf<ArgumentException>(() => WeightFiles.Save(folder.Path, [.. all, Fixtures.Bytes("d")], weights.Layout)), StringComparison.Ordinal);
        Assert.StartsWith("Two tensors are named 'a'.", Fixtures.MessageOf<ArgumentException>(() => WeightFiles.Save(folder.Path, [.. all, Fixtures.Bytes("a")], weights.Layout)), StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => WeightFiles.Save(folder.Path, [Fixtures.Bytes("a"), Fixtures.Bytes("a")]));
        Assert.Throws<ArgumentOutOfRangeException>(() => WeightFiles.Save(folder.Path, all, maxShardBytes: 0));
    }

    [Fact]
    public void Rejects_shards_that_disagree_with_the_index()
    {
        using var folder = new TemporaryFolder();
        string indexPath = folder["model.safetensors.index.json"];
        void Check(Action damage, string message)
        {
            SaveShards(folder);
            damage();
            Assert.Equal(message, Fixtures.MessageOf<InvalidDataException>(() => WeightFiles.Open(folder.Path)));
            foreach (string name in folder.Names) File.Delete(folder[name]);
        }
        void Edit(string from, string to)
        {
            string text = File.ReadAllText(indexPath);
            Assert.Contains(from, text, StringComparison.Ordinal);
            File.WriteAllText(indexPath, text.Replace(from, to, StringComparison.Ordinal));
        }

        Check(() => Edit("\"a\": ", "\"new\": \"" + Two + "\",\n\"a\": "), $"{indexPath}: tensor 'new' is not in {Two}.");
        Check(() => Edit($"\"a\": \"{Two}\",", ""), $"{folder[Two]}: tensor 'a' is not in model.safetensors.index.json.");
        Check(() => Edit($"\"a\": \"{Two}\"", $"\"a\": \"{Three}\""), $"{folder[Two]}: tensor 'a' should be in {Three}, says model.safetensors.index.json.");
        Check(() => SafetensorsWriter.Write(folder[Three], [Fixtures.Bytes("c"), Fixtures.Floats("big")]), $"{folder[Three]}: tensor 'big' stands in {One} too.");
        Check(() => File.WriteAllBytes(folder["model.safetensors"], Fixtures.File("{}", 0)), $"{folder.Path}: holds model.safetensors and an index of other files; remove the one that is not meant.");
        Check(() => File.WriteAllBytes(folder[Two], Fixtures.File("{}", 4)), $"{folder[Two]}: the tensors end at byte 0 of 4 bytes of data.");
    }

    [Fact]
    public void Missing_files_are_named()
    {
        using var folder = new TemporaryFolder();
        Assert.StartsWith($"{folder.Path}: neither", Fixtures.MessageOf<FileNotFoundException>(() => WeightFiles.Open(folder.Path)), StringComparison.Ordinal);
        Assert.StartsWith(folder["no"], Fixtures.MessageOf<DirectoryNotFoundException>(() => WeightFiles.Open(folder["no"])), StringComparison.Ordinal);
        SaveShards(folder);
        File.Delete(folder[Two]);
        Assert.Contains(folder[Two], Fixtures.MessageOf<FileNotFoundException>(() => WeightFiles.Open(folder.Path)), StringComparison.Ordinal);
        using FileStream released = new(folder[One], FileMode.Open, FileAccess.ReadWrite, FileShare.None);
    }

    [Theory]
    [InlineData("", "not valid JSON at line 1, byte 1.")]
    [InlineData("[]", "must be a JSON object, got a list.")]
    [InlineData("{} x", "not valid JSON at line 1, byte 4.")]
    [InlineData("{}", "has no weight_map.")]
    [InlineData("""{"weight_map":[]}""", "weight_map must be an object, got a list.")]
    [InlineData("""{"weight_map":{}}""", "weight_map is empty.")]
    [InlineData("""{"metadata":3,"weight_map":{"a":"m.safetensors"}}""", "metadata must be an object, got 3.")]
    [InlineData("""{"weight_map":{"a":1}}""", "tensor 'a' must map to a file name, got 1.")]
    [InlineData("""{"weight_map":{"a":"m.safetensors","a":"m.safetensors"}}""", "the key 'a' stands twice in one object.")]
    [InlineData("""{"weight_map":{"a":"../m.safetensors"}}""", "tensor 'a' maps to '../m.safetensors', which is no .safetensors file name in this folder.")]
    [InlineData("""{"weight_map":{"a":"sub/m.safetensors"}}""", "tensor 'a' maps to 'sub/m.safetensors', which is no .safetensors file name in this folder.")]
    [InlineData("""{"weight_map":{"a":"..\\m.safetensors"}}""", "tensor 'a' maps to '..\\m.safetensors', which is no .safetensors file name in this folder.")]
    [InlineData("""{"weight_map":{"a":"C:m.safetensors"}}""", "tensor 'a' maps to 'C:m.safetensors', which is no .safetensors file name in this folder.")]
    [InlineData("""{"weight_map":{"a":".safetensors"}}""", "tensor 'a' maps to '.safetensors', which is no .safetensors file name in this folder.")]
    [InlineData("""{"weight_map":{"a":"m\u0000.safetensors"}}""", "tensor 'a' maps to 'm\\u0000.safetensors', which is no .safetensors file name in this folder.")]
    [InlineData("""{"weight_map":{"a":"passwd"}}""", "tensor 'a' maps to 'passwd', which is no .safetensors file name in this folder.")]
    public void Rejects_index(string text, string message) =>
        Assert.Equal($"i.json: {message}", Fixtures.MessageOf<InvalidDataException>(() => WeightIndex.Parse(Encoding.UTF8.GetBytes(text), "i.json")));
}
