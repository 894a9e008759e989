using System.Text;
using ZEngine.Models;

namespace ZEngine.Tests.Models;

/// <summary>Every scaling rule against its formula written out anew, and what must hold between rules.</summary>
public sealed class RotaryEmbeddingTests
{
    private static RotaryOptions Read(string json, double theta = 10000) => RotaryOptions.Read(ModelConfigFile.Parse(Encoding.UTF8.GetBytes(json)), theta);

    /// <summary>The reference's way: whole arrays, powers of the base, explicit cases.</summary>
    private static (double[] Inverse, double Multiplier) Reference(RotaryOptions o, int r, long length)
    {
        double theta = o.Theta, multiplier = 1;
        double max = o.MaxPositions ?? 0, trained = o.OriginalMaxPositions ?? max;
        if (o.Scaling == RotaryScaling.Dynamic)
        {
            double l = Math.Max(length, max);
            theta *= Math.Pow(o.Factor * l / max - (o.Factor - 1), (double)r / (r - 2));
        }
        var inverse = new double[r / 2];
        for (int i = 0; i < r / 2; i++)
        {
            double plain = 1 / Math.Pow(theta, 2.0 * i / r);
            switch (o.Scaling)
            {
                case RotaryScaling.Linear:
                    inverse[i] = plain / o.Factor;
                    break;
                case RotaryScaling.Llama3:
                    double wavelength = 2 * Math.PI / plain;
                    if (wavelength > trained / o.LowFrequencyFactor) inverse[i] = plain / o.Factor;
                    else if (wavelength < trained / o.HighFrequencyFactor) inverse[i] = plain;
                    else
                    {
                        double t = (trained / wavelength - o.LowFrequencyFactor) / (o.HighFrequencyFactor - o.LowFrequencyFactor);
                        inverse[i] = (1 - t) * plain / o.Factor + t * plain;
                    }
                    break;
                case RotaryScaling.Yarn:
                    double Pair(double turns) => r * Math.Log(trained / (2 * Math.PI * turns)) / (2 * Math.Log(theta));
                    double low = Pair(o.BetaFast), high = Pair(o.BetaSlow);
                    if (o.Truncate) (low, high) = (Math.Floor(low), Math.Ceiling(high));
                    low = Math.Max(low, 0);
                    high = Math.Min(high, r - 1);
                    if (low == high) high += 0.001;
                    double ramp = Math.Min(1, Math.Max(0, (i - low) / (high - low)));
                    inverse[i] = plain / o.Factor * ramp + plain * (1 - ramp);
                    break;
                case RotaryScaling.LongRope:
                    inverse[i] = plain / (length > trained ? o.LongFactors : o.ShortFactors)[i];
                    break;
                default:
                    inverse[i] = plain;
                    break;
            }
        }
        if (o.Scaling == RotaryScaling.Yarn)
            multiplier = o.AttentionFactor ?? (o.Mscale is > 0 && o.MscaleAllDim is > 0
                ? (0.1 * o.Mscale.Value * Math.Log(o.Factor) + 1) / (0.1 * o.MscaleAllDim.Value * Math.Log(o.Factor) + 1)
                : 0.1 * Math.Log(o.Factor) + 1);
        if (o.Scaling == RotaryScaling.LongRope) multiplier = o.AttentionFactor ?? (max > trained ? Math.Sqrt(1 + Math.Log(max / trained) / Math.Log(trained)) : 1);
        return (inverse, multiplier);
    }

    public static TheoryData<string, long> Configurations() => new()
    {
        { """{}""", 40 },
        { """{"rope_parameters":{"rope_type":"default","rope_theta":1000000.0}}""", 700 },
        { """{"rope_parameters":{"rope_type":"linear","rope_theta":10000.0,"factor":4.0}}""", 100 },
        { """{"rope_theta":10000.0,"rope_scaling":{"type":"linear","factor":2.5}}""", 100 },
        { """{"max_position_embeddings":64,"rope_scaling":{"type":"dynamic","factor":3.0}}""", 50 },
        { """{"max_position_embeddings":64,"rope_scaling":{"type":"dynamic","factor":3.0}}""", 64 },
        { """{"max_position_embeddings":64,"rope_scaling":{"rope_type":"dynamic","factor":3.0}}""", 65 },
        { """{"max_position_embeddings":64,"rope_parameters":{"rope_type":"dynamic","factor":3.0,"rope_theta":500.0}}""", 300 },
        { """{"max_position_embeddings":4096,"rope_parameters":{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":1024}}""", 200 },
        { """{"max_position_embeddings":4096,"rope_scaling":{"type":"yarn","factor":4.0,"original_max_position_embeddings":1024,"truncate":false,"beta_fast":16,"beta_slow":2}}""", 200 },
        { """{"max_position_embeddings":4096,"rope_scaling":{"type":"yarn","factor":40.0,"mscale":1.0,"mscale_all_dim":0.707,"original_max_position_embeddings":1024}}""", 20 },
        { """{"max_position_embeddings":4096,"rope_scaling":{"type":"yarn","factor":40.0,"attention_factor":0.8}}""", 20 },
        { """{"max_position_embeddings":8,"rope_scaling":{"type":"yarn","factor":2.0}}""", 20 },
        { """{"max_position_embeddings":512,"rope_parameters":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":32}}""", 128 },
        { """{"max_position_embeddings":131072,"rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":32.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192}}""", 128 },
        { LongRope, 32 },
        { LongRope, 33 },
    };

    private const string LongRope = """
        {"max_position_embeddings":128,"original_max_position_embeddings":32,"rope_scaling":{"type":"longrope",
         "short_factor":[1,1.1,1.2,1.3,1.4,1.5,1.6,1.7],"long_factor":[1,2,3,4,5,6,7,8.5]}}
        """;

    [Theory]
    [MemberData(nameof(Configurations))]
    public void Tables_equal_the_formulas(string json, long positions)
    {
        const int R = 16;
        RotaryOptions options = Read(json);
        (double[] inverse, double multiplier) = Reference(options, R, positions);
        using TensorScope scope = TensorScope.Enter();
        using var rotary = new RotaryEmbedding(options, R, Device.Cpu);
        (Tensor cosine, Tensor sine) = rotary.Tables(positions);
        Assert.True(cosine.Shape[0] >= positions && sine.Shape.SequenceEqual(cosine.Shape));
        (float[] c, float[] s) = (cosine.ToArray<float>(), sine.ToArray<float>());
        for (long p = 0; p < positions; p++)
        for (int i = 0; i < R / 2; i++)
        {
            Assert.Equal(multiplier * Math.Cos(p * inverse[i]), c[p * (R / 2) + i], 3e-7 * multiplier);
            Assert.Equal(multiplier * Math.Sin(p * inverse[i]), s[p * (R / 2) + i], 3e-7 * multiplier);
        }
    }

    [Fact]
    public void A_factor_of_one_changes_nothing()
    {
        var plain = new RotaryOptions { MaxPositions = 64 };
        double[] Frequencies(RotaryOptions options)
        {
            using var rotary = new RotaryEmbedding(options, 12, Device.Cpu);
            Assert.Equal(1, rotary.Multiplier);
            return [.. rotary.Frequencies(1000)];
        }
        double[] want = Frequencies(plain), ones = [1, 1, 1, 1, 1, 1];
        foreach (RotaryScaling rule in (ReadOnlySpan<RotaryScaling>)[RotaryScaling.Linear, RotaryScaling.Dynamic, RotaryScaling.Yarn, RotaryScaling.Llama3, RotaryScaling.LongRope])
        {
            // With a factor of 1 the dynamic rule still stretches beyond the trained length: L / max to some power.
            double[] got = Frequencies(plain with { Scaling = rule, ShortFactors = ones, LongFactors = ones, MaxPositions = rule == RotaryScaling.Dynamic ? 1000 : 64 });
            for (int i = 0; i < want.Length; i++) Assert.Equal(want[i], got[i], 1e-15);
        }
    }

    /// <summary>As transformers has it: a factor that is given counts before the ratio of the lengths, and a trained length beside the scaling before one inside.</summary>
    [Theory]
    [InlineData("\"factor\":4,\"original_max_position_embeddings\":16", "", 4, 16)]
    [InlineData("\"original_max_position_embeddings\":16", "", 8, 16)]
    [InlineData("\"factor\":4,\"original_max_position_embeddings\":16", "\"original_max_position_embeddings\":32,", 4, 32)]
    [InlineData("\"original_max_position_embeddings\":16", "\"original_max_position_embeddings\":32,", 4, 32)]
    [InlineData("\"factor\":0.5", "", 1, 128)]
    public void Long_rope_scales_by_the_factor_or_the_ratio(string inside, string beside, double factor, double trained)
    {
        RotaryOptions options = Read($$"""{ {{beside}}"max_position_embeddings":128,"rope_parameters":{"rope_type":"longrope","short_factor":[1,1],"long_factor":[2,3],{{inside}} } }""");
        Assert.Equal(trained, (double)options.OriginalMaxPositions!);
        using var rotary = new RotaryEmbedding(options, 4, Device.Cpu);
        Assert.Equal(factor == 1 ? 1 : Math.Sqrt(1 + Math.Log(factor) / Math.Log(trained)), rotary.Multiplier, 1e-12);
    }

    [Fact]
    public void Both_forms_read_alike()
    {
        RotaryOptions a = Read("""{"rope_theta":500.0,"max_position_embeddings":99,"partial_rotary_factor":0.5,"rope_scaling":{"type":"linear","factor":2.0}}""");
        RotaryOptions b = Read("""{"max_position_embeddings":99,"rope_parameters":{"rope_theta":500.0,"partial_rotary_factor":0.5,"rope_type":"linear","factor":2.0}}""");
        Assert.Equal(a, b);
        Assert.Equal(8, a.RotaryDimension(16));
        Assert.Equal(77, Read("""{"rope_scaling":null}""", 77).Theta);
        Assert.Equal(1e6, Read("""{"rope_theta":1e6,"rope_parameters":{"rope_type":"default"}}""", 77).Theta);
        ModelConfigFile layers = ModelConfigFile.Parse("""{"rope_parameters":{"full":{"rope_type":"default","rope_theta":1e6},"sliding":{"rope_theta":5e4},"rope_type":"default"}}"""u8);
        Assert.Equal(5e4, RotaryOptions.Read(layers, layerType: "sliding").Theta);
        Assert.Equal(1e6, RotaryOptions.Read(layers, layerType: "full").Theta);
    }

    [Fact]
    public void Tables_grow_and_earlier_ones_stay_valid()
    {
        long buffers = Devices.LiveBuffers(Device.Cpu);
        using (var rotary = new RotaryEmbedding(new RotaryOptions(), 8, Device.Cpu))
        {
            using TensorScope scope = TensorScope.Enter();
            (Tensor early, _) = rotary.Tables(3);
            float[] before = early.ToArray<float>();
            using (TensorScope.Enter()) rotary.Tables(5000);
            Assert.Equal(before, early.ToArray<float>());
            (Tensor late, _) = rotary.Tables(3);
            Assert.True(late.Shape[0] >= 5000);
            Assert.Equal(before, late.ToArray<float>()[..before.Length]);
        }
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);
    }

    [Fact]
    public void Dynamic_returns_to_the_plain_table_for_a_short_sequence()
    {
        using TensorScope scope = TensorScope.Enter();
        using var dynamic = new RotaryEmbedding(new RotaryOptions { Scaling = RotaryScaling.Dynamic, Factor = 2, MaxPositions = 10 }, 8, Device.Cpu);
        using var plain = new RotaryEmbedding(new RotaryOptions(), 8, Device.Cpu);
        float[] want = plain.Tables(10).Cosine.ToArray<float>()[..40];
        Assert.Equal(want, dynamic.Tables(10).Cosine.ToArray<float>()[..40]);
        float[] stretched = dynamic.Tables(30).Cosine.ToArray<float>();
        Assert.NotEqual(want, stretched[..40]);
        Assert.NotEqual(stretched[..40], dynamic.Tables(31).Cosine.ToArray<float>()[..40]);
        Assert.Equal(stretched, dynamic.Tables(30).Cosine.ToArray<float>());
        Assert.Equal(want, dynamic.Tables(7).Cosine.ToArray<float>()[..40]);
    }

    [Fact]
    public void Backward_survives_a_growing_table()
    {
        using var rotary = new RotaryEmbedding(new RotaryOptions(), 4, Device.Cpu);
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(ZEngine.Ops.RandomNormal([1, 5, 1, 4], Device.Cpu, new RandomStream(1))), y;
        using (TensorScope inner = TensorScope.Enter())
        {
            (Tensor cosine, Tensor sine) = rotary.Tables(5);
            y = inner.Keep(ZEngine.Ops.Rope(x, cosine, sine));
        }
        using (TensorScope.Enter()) rotary.Tables(9999);
        tape.Backward(y, y);
        float[] want = x.ToArray<float>(), got = tape.GradientOf(x).ToArray<float>();          // a rotation's inverse is its transpose
        for (int i = 0; i < want.Length; i++) Assert.Equal(want[i], got[i], 1e-6f);
    }

    [Theory]
    [InlineData("""{"rope_scaling":{"type":"ntk","factor":2.0}}""", "config.json: rope_scaling.type must be default, linear, dynamic, yarn, llama3 or longrope, got 'ntk'.")]
    [InlineData("""{"rope_scaling":{"type":"linear"}}""", "config.json: rope_scaling.factor is missing; it must be a number.")]
    [InlineData("""{"rope_scaling":{"type":"linear","factor":0.5}}""", "config.json: rope_scaling.factor must be at least 1, got 0.5.")]
    [InlineData("""{"rope_scaling":{"type":"dynamic","factor":2}}""", "config.json: rope_scaling.original_max_position_embeddings is missing, and so is max_position_embeddings; one must be a positive integer.")]
    [InlineData("""{"rope_scaling":{"type":"linear","factor":2},"rope_parameters":{"rope_type":"default"}}""", "config.json: rope_scaling says Linear with factor 2, but rope_parameters says Default with factor 1.")]
    [InlineData("""{"rope_parameters":{"full":{"rope_type":"default"}}}""", "config.json: rope_parameters are given for each layer type, such as full; the model must name one.")]
    [InlineData("""{"max_position_embeddings":9,"rope_parameters":{"rope_type":"llama3","factor":2,"low_freq_factor":4,"high_freq_factor":4}}""", "config.json: rope_parameters.high_freq_factor must be above low_freq_factor, and both above 0; got 4 and 4.")]
    [InlineData("""{"partial_rotary_factor":1.5}""", "config.json: partial_rotary_factor must be above 0 and at most 1, got 1.5.")]
    [InlineData("""{"rope_theta":0}""", "config.json: rope_theta must be at least 1, got 0.")]
    public void Rejects_what_it_cannot_work_with(string json, string message) =>
        Assert.Equal(message, Assert.Throws<InvalidDataException>(() => Read(json)).Message);

    [Fact]
    public void Rejects_widths_that_do_not_fit()
    {
        Assert.Equal("RotaryEmbedding: the rotary width must be positive and even, got 7.", Assert.Throws<ArgumentException>(() => new RotaryEmbedding(new RotaryOptions(), 7, Device.Cpu)).Message);
        Assert.Equal("RotaryEmbedding: LongRope needs 4 short and long factors for 8 channels, got 8 and 8.", Assert.Throws<ArgumentException>(() => new RotaryEmbedding(Read(LongRope), 8, Device.Cpu)).Message);
        Assert.Equal("RotaryOptions: 0.3 of 10 channels is 3, which must be a positive even number of at most 10.", Assert.Throws<ArgumentException>(() => new RotaryOptions { PartialFactor = 0.3 }.RotaryDimension(10)).Message);
    }
}
