using ZEngine.Models;

namespace ZEngine.Tests.Models;

/// <summary>Sequences that come and go in shared pages get what each gets alone.</summary>
public sealed class KeyValuePagesTests
{
    private const int Heads = 4, Groups = 2, P = 16;

    public static TheoryData<string, bool> Ways => [.. from device in Devices.Names from isBytes in new[] { false, true } select new TheoryDataRow<string, bool>(device, isBytes)];

    private static Tensor Values(Device device, ulong seed, params ReadOnlySpan<long> shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(seed)).To(device);

    [Theory, MemberData(nameof(Ways))]
    public void Sequences_that_come_and_go_get_the_bits_of_each_alone(string name, bool isBytes)
    {
        Device device = Devices.Open(name);
        long buffers = Devices.LiveBuffers(device);
        DType stored = isBytes ? DType.Int8 : DType.Float32;
        using (var pages = new KeyValuePages(device, stored, layers: 2, slots: 3, maxLength: 64, pages: 9, Groups, P, pageSize: 16))
        using (TensorScope scope = TensorScope.Enter())
        {
            var alone = new DecodeCache?[3, 2];
            for (int step = 0; step < 45; step++)
            {
                if (step is 0 or 4 or 9 or 30)
                {
                    int slot = pages.Open(), prompt = 5 + step / 3;
                    pages.Grow(slot, prompt);
                    for (int layer = 0; layer < 2; layer++)
                    {
                        alone[slot, layer] = DecodeCache.Contiguous(device, stored, 1, 96, Groups, P);
                        (Tensor k, Tensor v) = (Values(device, (ulong)(step * 10 + layer), 1, prompt, Groups, P), Values(device, (ulong)(step * 10 + layer + 5), 1, prompt, Groups, P));
                        ZEngine.Ops.AppendKeyValues(k, v, pages.Layer(layer).Slice(slot, 1));
                        ZEngine.Ops.AppendKeyValues(k, v, alone[slot, layer]!);
                    }
                }
                if (step is 21)
                {
                    pages.Close(1);
                    (alone[1, 0], alone[1, 1]) = (null, null);
                }
                for (int slot = 0; slot < 3; slot++)
                    if (alone[slot, 0] is not null) pages.Grow(slot, 1);
                for (int layer = 0; layer < 2; layer++)
                {
                    using TensorScope inner = TensorScope.Enter();
                    ulong seed = (ulong)(5000 + step * 10 + layer);
                    Tensor q = Values(device, seed, 3, 1, Heads, P), k = Values(device, seed + 3, 3, 1, Groups, P), v = Values(device, seed + 6, 3, 1, Groups, P);
                    float[] got = ZEngine.Ops.AttentionDecode(q, k, v, pages.Layer(layer)).O.ToArray<float>();
                    for (int slot = 0; slot < 3; slot++)
                    {
                        float[] want = alone[slot, layer] is { } own ? ZEngine.Ops.AttentionDecode(q.Slice(0, slot, 1), k.Slice(0, slot, 1), v.Slice(0, slot, 1), own).O.ToArray<float>() : new float[Heads * P];
                        Assert.Equal(want, got[(slot * Heads * P)..((slot + 1) * Heads * P)]);
                    }
                }
            }
        }
        Assert.Equal(buffers, Devices.LiveBuffers(device));
    }

    /// <summary>
    /// With a window sequences of any length go on in few pages, which come back as they fall out of it: what each gets is, to the bit, what a cache of all its tokens gives.
    /// Prompts of every kind: none, within the window, and so long that its beginning never gets a page.
    /// </summary>
    [Theory, MemberData(nameof(Ways))]
    public void A_window_gives_pages_back_and_changes_no_bit(string name, bool isBytes)
    {
        Device device = Devices.Open(name);
        DType stored = isBytes ? DType.Int8 : DType.Float32;
        const int Window = 21, PageSize = 16, MaxLength = 1024, Steps = 50;
        int[] prompts = [0, 13, 70];
        // A window lies on three pages at most, and on the way to the next a fourth is not needed.
        using var pages = new KeyValuePages(device, stored, layers: 1, slots: 3, MaxLength, pages: 3 * 3, Groups, P, PageSize, Window);
        using TensorScope scope = TensorScope.Enter();
        var alone = new DecodeCache[3];
        for (int slot = 0; slot < 3; slot++)
        {
            Assert.Equal(slot, pages.Open());
            alone[slot] = DecodeCache.Contiguous(device, stored, 1, MaxLength, Groups, P);
            if (prompts[slot] == 0) continue;
            pages.Grow(slot, prompts[slot]);
            (Tensor k, Tensor v) = (Values(device, (ulong)slot, 1, prompts[slot], Groups, P), Values(device, (ulong)slot + 5, 1, prompts[slot], Groups, P));
            ZEngine.Ops.AppendKeyValues(k, v, pages.Layer(0).Slice(slot, 1));
            ZEngine.Ops.AppendKeyValues(k, v, alone[slot]);
        }
        for (int step = 0; step < Steps; step++)
        {
            using TensorScope inner = TensorScope.Enter();
            for (int slot = 0; slot < 3; slot++) pages.Grow(slot, 1);
            ulong seed = (ulong)(100 + step * 10);
            Tensor q = Values(device, seed, 3, 1, Heads, P), k = Values(device, seed + 3, 3, 1, Groups, P), v = Values(device, seed + 6, 3, 1, Groups, P);
            var options = new AttentionOptions(Window: Window);
            float[] got = ZEngine.Ops.AttentionDecode(q, k, v, pages.Layer(0), options: options).O.ToArray<float>();
            for (int slot = 0; slot < 3; slot++)
                Assert.Equal(ZEngine.Ops.AttentionDecode(q.Slice(0, slot, 1), k.Slice(0, slot, 1), v.Slice(0, slot, 1), alone[slot], options: options).O.ToArray<float>(), got[(slot * Heads * P)..((slot + 1) * Heads * P)]);
        }
        // What the last positions keep is there to be read, and what the window has left is not.
        foreach (int slot in (ReadOnlySpan<int>)[0, 2])
        {
            long last = pages.LengthOf(slot) - (Window - 1);
            (Tensor keys, Tensor values) = ZEngine.Ops.ReadKeyValues(pages.Layer(0).Slice(slot, 1), Window - 1, DType.Float32, last);
            (Tensor wantKeys, Tensor wantValues) = ZEngine.Ops.ReadKeyValues(alone[slot], Window - 1, DType.Float32, last);
            Assert.Equal(wantKeys.ToArray<float>(), keys.ToArray<float>());
            Assert.Equal(wantValues.ToArray<float>(), values.ToArray<float>());
            Assert.All(ZEngine.Ops.ReadKeyValues(pages.Layer(0).Slice(slot, 1), 5, DType.Float32).Keys.ToArray<float>(), x => Assert.Equal(0, x));
        }
        for (int slot = 0; slot < 3; slot++) pages.Close(slot);
        Assert.Equal(9, pages.FreePages);
    }

    [Fact]
    public void Limits_and_mistakes_are_told_and_change_nothing()
    {
        using var pages = new KeyValuePages(Device.Cpu, DType.Float32, layers: 1, slots: 2, maxLength: 40, pages: 3, Groups, P, pageSize: 16);
        string Message(Action action) => Assert.Throws<InvalidOperationException>(action).Message;
        (int first, int second) = (pages.Open(), pages.Open());
        Assert.Equal("KeyValuePages: all 2 slots are taken; close one first.", Message(() => pages.Open()));
        pages.Grow(first, 17);
        Assert.Equal(1, pages.FreePages);
        Assert.Equal("KeyValuePages: 20 more tokens of slot 1 need 2 pages, 1 are free.", Message(() => pages.Grow(second, 20)));
        Assert.Equal("KeyValuePages: slot 0 has 17 of 40 tokens, 24 more do not fit.", Message(() => pages.Grow(first, 24)));
        Assert.Equal((17, 0, 1), (pages.LengthOf(first), pages.LengthOf(second), pages.FreePages));
        pages.Close(first);
        Assert.Equal(3, pages.FreePages);
        Assert.Equal("KeyValuePages: slot 0 is not open.", Message(() => pages.Grow(first, 1)));
        Assert.Equal("KeyValuePages: pageSize must be 16 or a larger power of two, got 24.", Assert.Throws<ArgumentException>(() => new KeyValuePages(Device.Cpu, DType.Float32, 1, 1, 40, 1, 1, 8, 24)).Message);
        // A sequence that nobody made room for has no page to write to.
        using TensorScope scope = TensorScope.Enter();
        Tensor q = Values(Device.Cpu, 1, 2, 1, Groups, P);
        Assert.Equal("AttentionDecode: page 0 of sequence 1 is -1, but there are 3.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.AttentionDecode(q, q, q, pages.Layer(0))).Message);
    }
}
