using ZEngine.Distributed;
using ZEngine.Models;
using ZEngine.Tests.Models;
using Op = ZEngine.Ops;

namespace ZEngine.Tests.Distributed;

/// <summary>Decoding with keys and values on several ranks is decoding on one.</summary>
public sealed class TreeDecodeTests
{
    private const int Prompt = 23, Second = 9, Answer = 64, Block = 5;

    [Theory]
    [InlineData("llama", 2, false)]
    [InlineData("llama", 3, false)]
    [InlineData("llama", 4, true)]
    [InlineData("zamba2, one block, attention adapters, rope", 2, false)]
    [InlineData("zamba2, two blocks, no rope, K 3", 4, true)]
    [InlineData("zamba", 3, false)]
    [InlineData("mamba2", 2, false)]
    public void Greedy_tokens_are_those_of_one_rank(string name, int ranks, bool isTwoLevel)
    {
        int[] prompt;
        float[] expected;
        int[] answer;
        using (LanguageModel model = SmallModels.New(name))
        {
            prompt = SmallModels.Tokens(model, Prompt + Second);
            (expected, answer) = Text(model, prompt, null);
        }
        (float[] Logits, int[] Answer)[] all = InProcessWorld.Run(ranks, world =>
        {
            using LanguageModel own = SmallModels.New(name);
            Communicator? node = isTwoLevel ? world.Split(world.Rank / 2) : null, across = isTwoLevel ? world.Split(world.Rank % 2) : null;
            return Text(own, prompt, new KeyValueSharding(world, Block, node, across));
        }, Worlds.Timeout);
        foreach ((float[] logits, int[] own) in all)
        {
            Assert.Equal(answer, own);
            Assert.Equal(all[0].Logits, logits);
            SmallModels.Same("logits", logits, expected);
        }
    }

    [Fact]
    public void Tokens_of_two_devices_are_those_of_one()
    {
        const int Tokens = 24;
        int[] prompt = [.. Enumerable.Range(0, 11).Select(i => (i * i + 3) % 31)];
        int[] Generate(Device device, KeyValueSharding? sharding)
        {
            using LanguageModel model = Cuda.CudaTrainingTests.NewLlama(device);
            using Session session = model.NewSession(maxLength: prompt.Length + Tokens, sharding: sharding);
            return [.. session.Generate(prompt, SamplingOptions.Greedy with { MaxNewTokens = Tokens }, TestContext.Current.CancellationToken)];
        }
        int[] expected = Generate(Device.Cpu, null);
        int[][] all = InProcessNccl.Run(2, (world, device) => Generate(device, new KeyValueSharding(world, Block)), checks: ZEngine.Emulator.EmulatorChecks.None);
        Assert.All(all, tokens => Assert.Equal(expected, tokens));
    }

    [Fact]
    public void Ranks_of_several_machines_merge_in_two_levels()
    {
        InProcessWorld.Run(4, world =>
        {
            Assert.Null(World.SplitByMachine(world, "one"));
            Assert.Null(World.SplitByMachine(world, world.Rank == 3 ? "small" : "large"));
            (Communicator node, Communicator across) = World.SplitByMachine(world, world.Rank % 2 == 0 ? "a" : "b")!.Value;
            Assert.Equal(world.Rank % 2 == 0 ? [0, 2] : [1, 3], node.Gather(world.Rank));
            Assert.Equal(world.Rank < 2 ? [0, 1] : [2, 3], across.Gather(world.Rank));
        }, Worlds.Timeout);
    }

    /// <summary>A prompt in two pieces, then greedy tokens.</summary>
    private static (float[] Logits, int[] Answer) Text(LanguageModel model, int[] prompt, KeyValueSharding? sharding)
    {
        using Session session = model.NewSession(maxLength: prompt.Length + Answer, sharding: sharding);
        session.Append(prompt.AsSpan(0, Prompt));
        int[] answer = [.. session.Generate(prompt[Prompt..], SamplingOptions.Greedy with { MaxNewTokens = Answer }, TestContext.Current.CancellationToken)];
        return (session.Append(answer.AsSpan(^1..)).ToArray(), answer);
    }

    /// <summary>How many collectives this rank has begun.</summary>
    private static int Collectives(Communicator world)
    {
        string path = Path.GetTempFileName();
        world.Recorder!.Write(path);
        int count = File.ReadLines(path).Count(line => line.Length > 0);
        File.Delete(path);
        return count;
    }

    [Theory]
    [InlineData(1, 3, 40)]
    [InlineData(2, 4, 100)]
    [InlineData(3, 2, -100)]
    public void Merge_is_the_attention_over_all_keys_with_ragged_and_empty_shards(int seed, int ranks, float shift)
    {
        var random = new RandomStream((ulong)seed);
        float[] Values(int from, int count, float add = 0) => [.. Enumerable.Range(from, count).Select(i => (float)((random.Bits(i) & 0xFFFF) / 32768.0 - 1) + add)];
        const int Keys = 37, Heads = 4, Groups = 2, P = 6;
        float[] q = Values(0, Heads * P), k = Values(1000, Keys * Groups * P, shift), v = Values(5000, Keys * Groups * P);
        // The last rank has no key at all; the others have very different numbers.
        int[] cuts = [0, .. Enumerable.Range(1, ranks - 2 + 1).Select(i => i == ranks - 1 ? Keys : 3 * i), Keys];
        using Tensor all = Tensor.From<float>(q, [1, 1, Heads, P], Device.Cpu), keys = Tensor.From<float>(k, [1, Keys, Groups, P], Device.Cpu), values = Tensor.From<float>(v, [1, Keys, Groups, P], Device.Cpu);
        (Tensor o, Tensor lse) = Op.Attention(all, keys, values, new AttentionOptions(IsCausal: false));
        float[] expected = o.ToArray<float>(), expectedLse = lse.ToArray<float>();
        o.Dispose();
        lse.Dispose();
        InProcessWorld.Run(ranks, world =>
        {
            using TensorScope scope = TensorScope.Enter();
            int from = cuts[world.Rank], count = cuts[world.Rank + 1] - from;
            Tensor own = Tensor.From<float>(q, [1, 1, Heads, P], Device.Cpu);
            Tensor K = Tensor.From<float>(k.AsSpan(from * Groups * P, count * Groups * P), [1, count, Groups, P], Device.Cpu), V = Tensor.From<float>(v.AsSpan(from * Groups * P, count * Groups * P), [1, count, Groups, P], Device.Cpu);
            (Tensor part, Tensor partLse) = Op.Attention(own, K, V, new AttentionOptions(IsCausal: false));
            int before = Collectives(world);
            (Tensor merged, Tensor mergedLse) = new KeyValueSharding(world).Merge(part, partLse);
            Assert.Equal(before + 1, Collectives(world));      // o and lse are packed in one exchange
            for (int i = 0; i < expected.Length; i++) Assert.Equal(expected[i], merged.ToArray<float>()[i], 2e-5);
            for (int i = 0; i < expectedLse.Length; i++) Assert.Equal(expectedLse[i], mergedLse.ToArray<float>()[i], 2e-5 * Math.Max(1, Math.Abs(expectedLse[i])));
        }, Worlds.Timeout);
    }

    [Fact]
    public void Window_is_refused() => Assert.Contains("a window (7)", Assert.Throws<NotSupportedException>(() => InProcessWorld.Run(2, world =>
    {
        using LanguageModel model = SmallModels.New("mistral, window, biases");
        using Session session = model.NewSession(sharding: new KeyValueSharding(world));
        session.Append([1, 2]);
    })).Message, StringComparison.Ordinal);

    [Fact]
    public void Every_position_has_one_owner_and_room_there()
    {
        for (int ranks = 1; ranks <= 4; ranks++)
            InProcessWorld.Run(ranks, world =>
            {
                var sharding = new KeyValueSharding(world, Block);
                for (long length = 0; length < 60; length++)
                    Assert.Equal(Enumerable.Range(0, (int)length).Count(position => sharding.OwnerOf(position) == world.Rank), sharding.LengthOf(world.Rank, length));
            });
    }
}
