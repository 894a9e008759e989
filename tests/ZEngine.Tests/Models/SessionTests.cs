using ZEngine.Models;

namespace ZEngine.Tests.Models;

/// <summary>Sessions: threads, memory, limits and errors.</summary>
public sealed class SessionTests
{
    public static TheoryData<string> Models => SmallModels.Names;

    [Theory, MemberData(nameof(Models))]
    public void Two_threads_get_the_bits_of_one(string name)
    {
        for (ulong round = 0; round < 3; round++)
        {
            float[][] alone, together = new float[2][];
            using (LanguageModel model = SmallModels.New(name, round)) alone = [Text(model, 0, null), Text(model, 1, null)];
            using (LanguageModel model = SmallModels.New(name, round))              // a fresh one, so that both threads ask for tables that are not there
            using (var start = new Barrier(2))
            {
                Thread[] threads = [.. Enumerable.Range(0, 2).Select(i => new Thread(() => together[i] = Text(model, i, start)))];
                foreach (Thread thread in threads) thread.Start();
                foreach (Thread thread in threads) thread.Join();
            }
            Assert.Equal(alone[0], together[0]);
            Assert.Equal(alone[1], together[1]);
        }

        // The tables begin with 256 rows: both threads grow them on the way.
        static float[] Text(LanguageModel model, int which, Barrier? start)
        {
            int[] tokens = SmallModels.Tokens(model, 300, (ulong)which);
            using Session session = model.NewSession(maxLength: 300);
            start?.SignalAndWait();
            var logits = new List<float>();
            for (int at = 0; at < 300;)
            {
                int count = at is > 250 and < 262 ? 1 : Math.Min(50 + which, 300 - at);
                logits.AddRange(session.Append(tokens.AsSpan(at, count)));
                at += count;
            }
            return [.. logits];
        }
    }

    [Theory, MemberData(nameof(Models))]
    public void Decoding_allocates_a_constant_that_no_size_changes(string name)
    {
        using LanguageModel model = SmallModels.New(name);
        (long one, long four, long late) = (PerToken(model, 1, 4), PerToken(model, 4, 4), PerToken(model, 1, 600));
        TestContext.Current.TestOutputHelper?.WriteLine($"{name}: {one} B a token of {Allowed(model)} allowed; batch of 4: {four}; after 600 tokens: {late}");
        Assert.InRange(one, 0, Allowed(model));
        Assert.InRange(four, 0, one + 200);
        Assert.InRange(late, 0, one + 200);
    }

    [Fact]
    public void Decoding_allocates_the_same_for_wider_models()
    {
        using LanguageModel narrow = new Zamba2(SmallModels.Zamba2, Device.Cpu, 1);
        using LanguageModel wide = new Zamba2(SmallModels.Zamba2 with { HiddenSize = 128, MambaHeads = 16, MambaHeadDimension = 16, IntermediateSize = 512, VocabularySize = 1000, StateSize = 64 }, Device.Cpu, 1);
        (long few, long many) = (PerToken(narrow, 1, 4), PerToken(wide, 1, 4));
        TestContext.Current.TestOutputHelper?.WriteLine($"{few} B a token, {many} in a wider model");
        Assert.InRange(many, 0, few + few / 10);                                    // an op that is wide enough for several threads makes a record more
    }

    [Theory, MemberData(nameof(Models))]
    public void Decoding_keeps_no_buffer_and_a_session_gives_all_back(string name)
    {
        using LanguageModel model = SmallModels.New(name);
        _ = SmallModels.Logits(model, SmallModels.Tokens(model, 40));              // tables are made
        long before = Devices.LiveBuffers(Device.Cpu), leaked = Device.Cpu.LeakedBuffers;
        using (Session session = model.NewSession(maxLength: 40))
        {
            session.Append(SmallModels.Tokens(model, 3));
            long held = Device.Cpu.LiveBuffers, bytes = Device.Cpu.LiveBytes;
            for (int i = 0; i < 20; i++) session.Append([i]);
            Assert.Equal(held, Device.Cpu.LiveBuffers);
            Assert.Equal(bytes, Device.Cpu.LiveBytes);
            session.Dispose();
            Assert.Throws<ObjectDisposedException>(() => session.Append([1]));
        }
        Assert.Equal(before, Device.Cpu.LiveBuffers);
        Assert.Equal(leaked, Device.Cpu.LeakedBuffers);
    }

    [Fact]
    public void Limits_and_mistakes_are_told_and_change_nothing()
    {
        using LanguageModel model = new Zamba2(SmallModels.Zamba2, Device.Cpu, 1);
        using Session session = model.NewSession(maxLength: 8);
        float[] first = session.Append([1, 2, 3]).ToArray();
        Assert.Equal("Session.Append: 3 of 8 tokens are taken, 6 more do not fit; open the session with a larger maxLength.",
            Assert.Throws<InvalidOperationException>(() => session.Append([1, 2, 3, 4, 5, 6])).Message);
        Assert.Contains("at least one step", Assert.Throws<ArgumentException>(() => session.Append([])).Message);
        Assert.Contains("61", Assert.Throws<ArgumentException>(() => session.Append([61])).Message);
        Assert.Contains("-1", Assert.Throws<ArgumentException>(() => session.Append([-1])).Message);
        Assert.Throws<ArgumentException>(() => session.Generate([], SamplingOptions.Greedy, TestContext.Current.CancellationToken));
        using (Tensor pair = Tensor.From<int>([1, 2], [2, 1], Device.Cpu))
            Assert.Contains("[1, L]", Assert.Throws<ArgumentException>(() => session.Append(pair)).Message);
        using (Tensor floats = Tensor.Zeros([1, 2], DType.Float32, Device.Cpu)) Assert.Throws<ArgumentException>(() => session.Append(floats));
        Assert.Equal(3, session.Length);
        float[] next = session.Append([4]).ToArray();

        using Session again = model.NewSession(maxLength: 8);
        Assert.Equal(first, again.Append([1, 2, 3]).ToArray());
        Assert.Equal(next, again.Append([4]).ToArray());
        using Session batch = model.NewSession(batch: 2, maxLength: 8);
        Assert.Contains("[2, L]", Assert.Throws<InvalidOperationException>(() => batch.Append([1])).Message);
        Assert.Throws<ArgumentOutOfRangeException>(() => model.NewSession(batch: 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => model.NewSession(maxLength: 0));
    }

    /// <summary>What layers with a window keep does not grow with the text; what those that see all keep does.</summary>
    [Fact]
    public void A_window_bounds_a_sessions_memory()
    {
        static long Bytes(LanguageModel model, long maxLength)
        {
            long before = Device.Cpu.LiveBytes;
            using Session session = model.NewSession(maxLength: maxLength);
            return Device.Cpu.LiveBytes - before;
        }
        Devices.LiveBuffers(Device.Cpu);
        using (LanguageModel mistral = SmallModels.New("mistral, window, biases"), samba = SmallModels.New("samba"))
            foreach (LanguageModel model in (ReadOnlySpan<LanguageModel>)[mistral, samba]) Assert.Equal(Bytes(model, 100), Bytes(model, 1 << 20));
        using LanguageModel llama = SmallModels.New("llama");
        Assert.True(Bytes(llama, 10_000) > 50 * Bytes(llama, 100));
    }

    [Fact]
    public void A_session_that_does_not_fit_leaves_nothing_behind()
    {
        using LanguageModel model = new Zamba2(SmallModels.Zamba2, Device.Cpu, 1);
        long before = Devices.LiveBuffers(Device.Cpu);
        Assert.ThrowsAny<Exception>(() => model.NewSession(maxLength: long.MaxValue));
        Assert.Equal(before, Device.Cpu.LiveBuffers);
    }

    [Fact]
    public void A_model_without_memory_says_so()
    {
        using var model = new Mamba2(SmallModels.Mamba2);
        Assert.Contains("has no value yet", Assert.Throws<InvalidOperationException>(() => model.NewSession()).Message);
        Assert.Contains("has no value yet", Assert.Throws<InvalidOperationException>(() => SmallModels.Logits(model, [1])).Message);
    }

    [Fact]
    public void Generate_ends_at_the_limit_the_stop_token_and_the_cancellation()
    {
        using LanguageModel model = SmallModels.New("mamba2");
        int[] all = Take(SamplingOptions.Greedy with { MaxNewTokens = 12 });
        Assert.Equal(12, all.Length);
        Assert.Empty(Take(SamplingOptions.Greedy with { MaxNewTokens = 0 }));
        int stop = all[5];
        Assert.Equal(all[..Array.IndexOf(all, stop)], Take(SamplingOptions.Greedy with { MaxNewTokens = 12, StopTokens = [stop] }));
        using var cancel = new CancellationTokenSource();
        using Session session = model.NewSession(maxLength: 20);
        int seen = 0;
        foreach (int _ in session.Generate([1, 2], SamplingOptions.Greedy, cancel.Token)) if (++seen == 4) cancel.Cancel();
        Assert.Equal(4, seen);

        int[] Take(SamplingOptions options)
        {
            using Session one = model.NewSession(maxLength: 20);
            return [.. one.Generate([1, 2], options)];
        }
    }

    /// <summary>Bytes of tensor handles and records: measured 10-15 KB for a Mamba or Mamba-2 layer, 22 KB for a Llama layer, and 28-41 KB for a use of a shared block, the more with adapters.</summary>
    private static long Allowed(LanguageModel model)
    {
        const long PerMixer = 20_000, PerUse = 52_000, Rest = 4_000;
        return PerMixer * Count("Mamba-2 layer") + PerMixer * Count("Mamba layer") + PerUse * Count("attention") + PerUse * (Count("adapter and projection of a use") + Count("projection of a use")) + Rest;

        int Count(string part) => model.Parts.FirstOrDefault(one => one.Name == part)?.Count ?? 0;
    }

    private static long PerToken(LanguageModel model, int batch, int prompt)
    {
        using Session session = model.NewSession(batch, prompt + 40);
        Append(prompt);
        for (int i = 0; i < 8; i++) Append(1);                                      // lists and pools have their size
        long least = long.MaxValue;
        for (int i = 0; i < 16; i++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            Append(1);
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }
        return least;

        void Append(int count)
        {
            using TensorScope scope = TensorScope.Enter();
            Tensor tokens = Tensor.Zeros([batch, count], DType.Int32, Device.Cpu);
            session.Append(tokens);
        }
    }
}
