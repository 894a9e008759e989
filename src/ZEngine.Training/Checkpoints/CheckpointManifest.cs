using System.Security.Cryptography;
using System.Text.Json;
using ZEngine.Interop;

namespace ZEngine.Training;

/// <summary>The list of a checkpoint's files with their sizes and hashes, written last: a folder without it, or that differs from it, is no checkpoint.</summary>
internal static class CheckpointManifest
{
    public const string FileName = "manifest.json";

    /// <summary>Puts every file of the folder on disk, then the manifest that names them all.</summary>
    public static void Write(string folder, long step)
    {
        (string Name, long Bytes, string Hash)[] files = [.. Directory.GetFiles(folder).Order(StringComparer.Ordinal).Select(FlushAndHash)];
        DurableFolder.Flush(folder);
        Durable.Write(Path.Combine(folder, FileName), stream =>
        {
            using var json = new Utf8JsonWriter(stream, new JsonWriterOptions { Indented = true });
            json.WriteStartObject();
            json.WriteNumber("version", 1);
            json.WriteNumber("step", step);
            json.WriteStartArray("files");
            foreach ((string name, long bytes, string hash) in files)
            {
                json.WriteStartObject();
                json.WriteString("name", name);
                json.WriteNumber("bytes", bytes);
                json.WriteString("sha256", hash);
                json.WriteEndObject();
            }
            json.WriteEndArray();
            json.WriteEndObject();
        });
        DurableFolder.Flush(folder);
    }

    /// <summary>Holds a folder to its manifest.</summary>
    /// <exception cref="InvalidDataException">They differ; one line that says where.</exception>
    public static void Verify(string folder, long step)
    {
        string path = Path.Combine(folder, FileName);
        if (!File.Exists(path)) throw new InvalidDataException($"{FileName} is missing: the checkpoint was not finished");
        var known = new HashSet<string>(StringComparer.Ordinal) { FileName };
        try
        {
            using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(path));
            JsonElement root = document.RootElement;
            if (root.GetProperty("version").GetInt32() is not 1 and int version) throw new InvalidDataException($"{FileName} is of version {version}; this program reads version 1");
            if (root.GetProperty("step").GetInt64() is var named && named != step) throw new InvalidDataException($"{FileName} is of step {named}, the folder's name says {step}");
            foreach (JsonElement file in root.GetProperty("files").EnumerateArray())
            {
                string name = file.GetProperty("name").GetString()!;
                if (name != Path.GetFileName(name) || !known.Add(name)) throw new InvalidDataException($"{FileName} names the file '{name}', twice or outside the folder");
                VerifyFile(Path.Combine(folder, name), name, file.GetProperty("bytes").GetInt64(), file.GetProperty("sha256").GetString()!);
            }
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException or FormatException)
        {
            throw new InvalidDataException($"{FileName} is damaged", e);
        }
        if (!known.Contains(TrainerState.FileName)) throw new InvalidDataException($"{FileName} does not name {TrainerState.FileName}");
        // What no manifest vouches for must not be loaded by accident; other things, such as notes, may lie about.
        foreach (string file in Directory.GetFiles(folder).Select(file => Path.GetFileName(file)))
            if (!known.Contains(file) && Path.GetExtension(file) is ".json" or ".safetensors") throw new InvalidDataException($"{file} is not in {FileName}");
    }

    private static void VerifyFile(string path, string name, long bytes, string hash)
    {
        if (!File.Exists(path)) throw new InvalidDataException($"{name} is missing");
        using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0);
        if (stream.Length != bytes) throw new InvalidDataException($"{name} has {stream.Length} bytes, {FileName} says {bytes}");
        if (Convert.ToHexStringLower(SHA256.HashData(stream)) != hash) throw new InvalidDataException($"{name} does not have the hash of {FileName}: its contents changed");
    }

    private static (string Name, long Bytes, string Hash) FlushAndHash(string path)
    {
        using var stream = new FileStream(path, FileMode.Open, FileAccess.ReadWrite, FileShare.Read, bufferSize: 0);
        RandomAccess.FlushToDisk(stream.SafeFileHandle);
        return (Path.GetFileName(path), stream.Length, Convert.ToHexStringLower(SHA256.HashData(stream)));
    }
}
