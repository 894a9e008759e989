using ZEngine.Models;
using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Models;

/// <summary>The choice of tokens, against probabilities worked out the long way.</summary>
public sealed class SamplerTests
{
    private const int Vocabulary = 40, Draws = 20_000;

    private static readonly float[] s_logits = [.. Enumerable.Range(0, Vocabulary).Select(i => 2.5f * MathF.Sin(1.7f * i) + (i % 5 == 0 ? 0.5f : 0))];

    public static TheoryData<string, SamplingOptions> Options => new()
    {
        { "plain", new SamplingOptions() },
        { "cold", new SamplingOptions { Temperature = 0.5f } },
        { "hot", new SamplingOptions { Temperature = 3 } },
        { "top-k", new SamplingOptions { TopK = 7 } },
        { "top-k of all", new SamplingOptions { TopK = 1000 } },
        { "top-p", new SamplingOptions { TopP = 0.6f } },
        { "top-p of one", new SamplingOptions { TopP = 0.01f } },
        { "min-p", new SamplingOptions { MinP = 0.2f } },
        { "min-p of one", new SamplingOptions { MinP = 1 } },
        { "penalty", new SamplingOptions { RepetitionPenalty = 1.8f } },
        { "reward", new SamplingOptions { RepetitionPenalty = 0.7f } },
        { "all", new SamplingOptions { RepetitionPenalty = 1.3f, Temperature = 0.8f, TopK = 20, TopP = 0.9f, MinP = 0.05f } },
    };

    [Theory, MemberData(nameof(Options))]
    public void Tokens_come_as_often_as_their_probability_says(string name, SamplingOptions options)
    {
        int[] prompt = [0, 1, 2, 10, 10, 33];
        double[] expected = Probabilities(s_logits, prompt, options);
        var counts = new int[Vocabulary];
        // A penalty remembers what was drawn, so that each draw is the first of a text then.
        var sampler = new Sampler(options with { Seed = 3 }, Vocabulary);
        for (int i = 0; i < Draws; i++)
        {
            if (options.RepetitionPenalty != 1)
            {
                sampler = new Sampler(options with { Seed = (ulong)i }, Vocabulary);
                sampler.Remember(prompt);
            }
            counts[sampler.Next(s_logits)]++;
        }
        double chi = 0;
        int kinds = 0;
        for (int token = 0; token < Vocabulary; token++)
        {
            if (expected[token] == 0) Assert.True(counts[token] == 0, $"{name}: token {token} is filtered out and came {counts[token]} times");
            else
            {
                double want = Draws * expected[token];
                chi += (counts[token] - want) * (counts[token] - want) / want;
                kinds++;
            }
        }
        // Chi-square of n kinds has mean n - 1 and deviation √(2(n - 1)); the seed is fixed, five deviations leave room for its skew.
        Assert.True(chi <= kinds - 1 + 5 * Math.Sqrt(2.0 * Math.Max(1, kinds - 1)), $"{name}: chi-square {chi:F1} of {kinds} kinds");
    }

    [Fact]
    public void The_same_seed_gives_the_same_tokens_and_another_seed_others()
    {
        int[] a = Draw(1), b = Draw(1), c = Draw(2);
        Assert.Equal(a, b);
        Assert.NotEqual(a, c);

        static int[] Draw(ulong seed)
        {
            var sampler = new Sampler(new SamplingOptions { Seed = seed, Temperature = 1.5f }, Vocabulary);
            return [.. Enumerable.Range(0, 50).Select(_ => sampler.Next(s_logits))];
        }
    }

    [Fact]
    public void Generated_text_depends_on_seed_prompt_and_model_alone()
    {
        using LanguageModel model = SmallModels.New("zamba2, two blocks, odd sizes, K 2");
        int[] a = Text(1), b = Text(1), c = Text(2);
        Assert.Equal(a, b);
        Assert.NotEqual(a, c);

        int[] Text(ulong seed)
        {
            using Session session = model.NewSession(maxLength: 40);
            return [.. session.Generate([1, 2, 3], new SamplingOptions { MaxNewTokens = 30, Seed = seed, TopP = 0.95f, RepetitionPenalty = 1.1f })];
        }
    }

    [Fact]
    public void Ties_of_the_likeliest_go_to_the_lowest_token()
    {
        Assert.Equal(1, new Sampler(SamplingOptions.Greedy, 4).Next([1, 3, 3, 3]));
        Assert.Equal(0, new Sampler(SamplingOptions.Greedy, 3).Next([-0f, 0f, -1]));
        Assert.Equal(1, new Sampler(new SamplingOptions { TopK = 1 }, 4).Next([1, 3, 3, 3]));
        Assert.Equal(2, new Sampler(SamplingOptions.Greedy, 3).Next([float.NegativeInfinity, -4, -3]));
    }

    [Fact]
    public void Greedy_heeds_the_penalty()
    {
        var sampler = new Sampler(SamplingOptions.Greedy with { RepetitionPenalty = 2 }, 3);
        Assert.Equal([0, 1, 0], Enumerable.Range(0, 3).Select(_ => sampler.Next([3, 2, -1])));              // 3, then 2 above 3/2, then 3/2 above 2/2
    }

    [Fact]
    public void Broken_logits_are_an_error()
    {
        foreach (SamplingOptions options in (SamplingOptions[])[SamplingOptions.Greedy, new(), new() { TopP = 0.5f }])
        {
            Assert.Equal("Sampler: the logit of token 1 is NaN; the model's weights are broken.", Message([0, float.NaN, 1]));
            Assert.Equal("Sampler: the largest logit is Infinity; the model's weights are broken.", Message([0, float.PositiveInfinity, 1]));
            Assert.Equal("Sampler: the largest logit is -Infinity; the model's weights are broken.", Message([float.NegativeInfinity, float.NegativeInfinity, float.NegativeInfinity]));
            string Message(float[] logits) => Assert.Throws<NotFiniteNumberException>(() => new Sampler(options, 3).Next(logits)).Message;
        }
    }

    [Fact]
    public void Options_out_of_range_are_named()
    {
        Refused(new() { MaxNewTokens = -1 }, "MaxNewTokens must be 0 or more, got -1.");
        Refused(new() { RepetitionPenalty = 0 }, "RepetitionPenalty must be above 0, got 0.");
        Refused(new() { RepetitionPenalty = float.PositiveInfinity }, "RepetitionPenalty must be above 0, got ∞.");
        Refused(new() { Temperature = -1 }, "Temperature must be 0 or more, got -1.");
        Refused(new() { Temperature = float.NaN }, "Temperature must be 0 or more, got NaN.");
        Refused(new() { TopK = -2 }, "TopK must be 0 or more, got -2.");
        Refused(new() { TopP = 0 }, "TopP must be above 0 and at most 1, got 0.");
        Refused(new() { TopP = 1.5f }, "TopP must be above 0 and at most 1, got 1.5.");
        Refused(new() { MinP = -0.5f }, "MinP must be from 0 to 1, got -0.5.");
        Refused(new() { MinP = float.NaN }, "MinP must be from 0 to 1, got NaN.");

        static void Refused(SamplingOptions options, string message) =>
            Assert.Equal("SamplingOptions: " + message, Assert.Throws<ArgumentException>(() => new Sampler(options, 4)).Message.Replace("Infinity", "∞", StringComparison.Ordinal));
    }

    /// <summary>Every filter as its paper says it, one after the other, on a list of all tokens.</summary>
    private static double[] Probabilities(float[] logits, int[] prompt, SamplingOptions options)
    {
        double[] scores = [.. logits.Select((logit, token) => !prompt.Contains(token) ? logit : logit > 0 ? logit / options.RepetitionPenalty : (double)logit * options.RepetitionPenalty)];
        (int Token, double P)[] left = [.. scores.Select((score, token) => (token, Math.Exp(score / options.Temperature))).OrderByDescending(pair => pair.Item2)];
        if (options.TopK > 0) left = Normal(left.Take(options.TopK));
        left = Normal(left);
        int needed = 1;
        while (needed < left.Length && left.Take(needed).Sum(pair => pair.P) < options.TopP) needed++;
        left = Normal(left.Take(options.TopP < 1 ? needed : left.Length));
        left = Normal(left.Where(pair => pair.P >= options.MinP * left[0].P));
        var probabilities = new double[logits.Length];
        foreach ((int token, double p) in left) probabilities[token] = p;
        return probabilities;

        static (int, double)[] Normal(IEnumerable<(int Token, double P)> pairs)
        {
            (int Token, double P)[] all = [.. pairs];
            double sum = all.Sum(pair => pair.P);
            return [.. all.Select(pair => (pair.Token, pair.P / sum))];
        }
    }
}
