using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>Binary token files come back as they went, and a damaged one never does.</summary>
public sealed class BinaryTokensTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("zengine-tokens-").FullName;

    private string FilePath => Path.Combine(_folder, "tokens.bin");

    [Theory]
    [InlineData(256, 2)]
    [InlineData(65_536, 2)]
    [InlineData(65_537, 4)]
    [InlineData(2_000_000, 4)]
    public void Tokens_come_back(int vocabulary, int width)
    {
        int[] tokens = [.. Enumerable.Range(0, 150_000).Select(i => (int)new RandomStream(1).Below(i, vocabulary)), vocabulary - 1];
        Assert.Equal(tokens.Length, BinaryTokens.Write(FilePath, tokens, vocabulary));
        Assert.Equal(64 + (long)width * tokens.Length, new FileInfo(FilePath).Length);
        using BinaryTokens file = BinaryTokens.Open(FilePath);
        Assert.Equal((tokens.Length, vocabulary), (file.Count, file.Vocabulary));
        var read = new int[tokens.Length];
        file.Read(0, read);
        Assert.Equal(tokens, read);
        file.Read(149_990, read.AsSpan(0, 11));
        Assert.Equal(tokens[149_990..], read[..11]);
        Assert.Equal(new TextTokens(tokens, vocabulary).Fingerprint, file.Fingerprint);
        Assert.Throws<ArgumentOutOfRangeException>(() => file.Read(tokens.Length - 1, new int[2]));
    }

    [Fact]
    public void Stream_of_a_file_equals_one_of_the_tokens()
    {
        int[] tokens = [.. Enumerable.Range(0, 5000)];
        BinaryTokens.Write(FilePath, tokens, 5000);
        using TensorScope scope = TensorScope.Enter();
        using TokenStream file = TokenStream.Open(FilePath, batch: 4, length: 16, seed: 3), memory = new(new TokenWindows(new TextTokens(tokens, 5000), 16, 3), 4);
        for (int batch = 0; batch < 100; batch++) Assert.Equal(memory.Next(Device.Cpu).Targets.ToArray<int>(), file.Next(Device.Cpu).Targets.ToArray<int>());
    }

    [Fact]
    public void Several_files_are_read_as_one_in_the_order_of_their_names()
    {
        foreach ((string name, int first, int count) in (ReadOnlySpan<(string, int, int)>)[("train-2.bin", 30, 470), ("train-0.bin", 0, 10), ("train-1.bin", 10, 20), ("other.bin", 0, 5)])
            BinaryTokens.Write(Path.Combine(_folder, name), Enumerable.Range(first, count), 500);
        using TensorScope scope = TensorScope.Enter();
        using TokenStream files = TokenStream.Open(Path.Combine(_folder, "train-*.bin"), batch: 2, length: 7, seed: 3), memory = new(new TokenWindows(new TextTokens([.. Enumerable.Range(0, 500)], 500), 7, 3), 2);
        Assert.Equal(memory.Sequences.EpochLength, files.Sequences.EpochLength);
        for (int batch = 0; batch < 50; batch++) Assert.Equal(memory.Next(Device.Cpu).Targets.ToArray<int>(), files.Next(Device.Cpu).Targets.ToArray<int>());
        Assert.EndsWith("none-*.bin: no file has such a name.", Assert.Throws<FileNotFoundException>(() => TokenStream.Open(Path.Combine(_folder, "none-*.bin"), 1, 1)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0, 'X', "does not begin with ZTOKENS")]
    [InlineData(8, 2, "is of version 2; this program reads version 1")]
    [InlineData(12, 3, "has 3 bytes per token, must be 2 or 4")]
    [InlineData(12, 4, "it was cut or not finished")]
    [InlineData(16, 99, "it was cut or not finished")]
    [InlineData(23, 0x7F, "says that it holds")]
    [InlineData(24, 50, "has the token 50 at 50, but a vocabulary of 50")]
    [InlineData(27, 1, "has a vocabulary of 16777316, which 2 bytes per token do not allow")]
    [InlineData(28, 1, "has a reserved field that is not zero")]
    [InlineData(40, 1, "but its header says")]
    [InlineData(64, 1, "has tokens with the hash")]
    public void Damaged_file_is_refused(int at, int value, string reason)
    {
        BinaryTokens.Write(FilePath, Enumerable.Range(0, 100), 100);
        byte[] bytes = File.ReadAllBytes(FilePath);
        bytes[at] = (byte)value;
        File.WriteAllBytes(FilePath, bytes);
        string message = Assert.Throws<InvalidDataException>(() => BinaryTokens.Open(FilePath)).Message;
        Assert.StartsWith($"{FilePath}: the binary token file ", message, StringComparison.Ordinal);
        Assert.Contains(reason, message, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_flipped_bit_and_every_cut_is_noticed()
    {
        BinaryTokens.Write(FilePath, Enumerable.Range(0, 60), 60);
        byte[] bytes = File.ReadAllBytes(FilePath);
        for (int bit = 0; bit < 8 * bytes.Length; bit++)
        {
            // The vocabulary may be named larger than it is: that is no damage that hurts, the tokens are as they were.
            if (bit / 8 is 24 or 25 && (bytes[bit / 8] & 1 << bit % 8) == 0) continue;
            byte[] damaged = [.. bytes];
            damaged[bit / 8] ^= (byte)(1 << bit % 8);
            File.WriteAllBytes(FilePath, damaged);
            Assert.Throws<InvalidDataException>(() => BinaryTokens.Open(FilePath));
        }
        for (int length = 0; length < bytes.Length; length++)
        {
            File.WriteAllBytes(FilePath, bytes[..length]);
            Assert.Throws<InvalidDataException>(() => BinaryTokens.Open(FilePath, verify: false));
        }
        File.WriteAllBytes(FilePath, [.. bytes, 0]);
        Assert.Throws<InvalidDataException>(() => BinaryTokens.Open(FilePath, verify: false));
    }

    [Fact]
    public void Failed_write_leaves_the_old_file()
    {
        BinaryTokens.Write(FilePath, [1, 2, 3], 10);
        Assert.StartsWith("Token 10 at 3 is not from 0 to 9.", Assert.Throws<ArgumentException>(() => BinaryTokens.Write(FilePath, [1, 2, 3, 10], 10)).Message, StringComparison.Ordinal);
        Assert.Contains("there are no tokens to write", Assert.Throws<ArgumentException>(() => BinaryTokens.Write(FilePath, [], 10)).Message, StringComparison.Ordinal);
        using BinaryTokens file = BinaryTokens.Open(FilePath);
        Assert.Equal(3, file.Count);
        Assert.Equal([FilePath], Directory.GetFiles(_folder));
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);
}
