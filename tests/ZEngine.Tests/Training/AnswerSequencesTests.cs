using System.Text;
using ZEngine.CrashHost;
using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>Only answers count, every pair comes once an epoch, and what does not fit is said.</summary>
public sealed class AnswerSequencesTests
{
    private static readonly AnswerOptions s_options = new() { Length = 8, Vocabulary = 20 };

    [Fact]
    public void Prompt_and_padding_do_not_count()
    {
        Assert.Equal(([1, 2, 3, 4, 5, 0, 0, 0], [-100, -100, 4, 5, 6, -100, -100, -100]), Row(s_options, [1, 2, 3], [4, 5, 6]));
        Assert.Equal(([9, 1, 4, 0, 0, 0, 0, 0], [-100, 4, 8, -100, -100, -100, -100, -100]), Row(s_options with { Begin = 9, End = 8 }, [1], [4]));
        Assert.Equal(([1, 2, 3, 4, 5, 6, 7, 8], [-100, -100, -100, -100, -100, -100, -100, 9]), Row(s_options, [1, 2, 3, 4, 5, 6, 7, 8], [9]));
        Assert.Equal(([9, 4, 0, 0, 0, 0, 0, 0], [4, 5, -100, -100, -100, -100, -100, -100]), Row(s_options with { Begin = 9 }, [], [4, 5]));
    }

    [Fact]
    public void Too_long_is_an_error_or_is_cut_and_counted()
    {
        Assert.Equal("Pair 0 has 11 tokens, rows of 8 take 9; use longer rows, or let answers be cut (OverlongRule.Cut).", Refuses(s_options, [1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11]));
        AnswerOptions cut = s_options with { Overlong = OverlongRule.Cut, End = 12 };
        Assert.Equal(([1, 2, 3, 4, 5, 6, 7, 8], [-100, -100, 4, 5, 6, 7, 8, 9]), Row(cut, [1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11]));
        var source = new AnswerSequences([new([1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11]), new([1], [2])], cut);
        Assert.Equal((1, 8L), (source.CutCount, source.AnswerTokens));
        Assert.Equal("2 pairs with 8 tokens of answers in rows of 8; 1 answers cut", source.ToString());
        Assert.Contains("has a prompt of 9 tokens, which leaves no room", Refuses(cut, [1, 2, 3, 4, 5, 6, 7, 8, 9], [1]), StringComparison.Ordinal);
        Assert.Contains("has an empty prompt", Refuses(s_options, [], [1]), StringComparison.Ordinal);
        Assert.Contains("has an empty answer", Refuses(s_options, [1], []), StringComparison.Ordinal);
        Assert.Contains("has the token 20, which is not from 0 to 19", Refuses(s_options, [1], [20]), StringComparison.Ordinal);
        Assert.Equal("AnswerSequences: there is no pair.", Assert.Throws<InvalidDataException>(() => new AnswerSequences([], s_options)).Message);
    }

    [Fact]
    public void Every_pair_comes_once_an_epoch_in_an_order_of_the_seed()
    {
        PromptAnswer[] pairs = [.. Enumerable.Range(0, 19).Select(i => new PromptAnswer([i], [i]))];
        AnswerSequences one = new(pairs, s_options), same = new(pairs, s_options), other = new(pairs, s_options with { Seed = 1 });
        int[] first = Firsts(one, 0), second = Firsts(one, 19);
        Assert.Equal(Enumerable.Range(0, 19), first.Order());
        Assert.Equal(Enumerable.Range(0, 19), second.Order());
        Assert.NotEqual(first, second);
        Assert.Equal(second, Firsts(same, 19));
        Assert.NotEqual(first, Firsts(other, 0));
        Assert.Equal(one.Fingerprint, same.Fingerprint);
        Assert.NotEqual(one.Fingerprint, other.Fingerprint);
        Assert.NotEqual(one.Fingerprint, new AnswerSequences(pairs[1..], s_options).Fingerprint);

        static int[] Firsts(AnswerSequences source, int place) => [.. Enumerable.Range(place, 19).Select(at => Read(source, at).Tokens[0])];
    }

    [Fact]
    public void Lines_of_JSON_are_read_and_bad_ones_are_named()
    {
        using var run = new RunFolder();
        string path = Path.Combine(run.Path, "pairs.jsonl");
        AnswerOptions bytes = new() { Length = 8, Vocabulary = 256 };
        File.WriteAllText(path, "{\"prompt\": \"ab\", \"answer\": \"c\\n\", \"id\": 3}\r\n\n");
        AnswerSequences source = AnswerSequences.FromFile(path, text => [.. Encoding.UTF8.GetBytes(text).Select(b => (int)b)], bytes);
        Assert.Equal(([97, 98, 99, 0, 0, 0, 0, 0], [-100, 99, 10, -100, -100, -100, -100, -100]), Read(source, 0));
        Refuses("{\"prompt\": \"a\"}", "pairs.jsonl(2): has no string \"answer\".");
        Refuses("{\"prompt\": \"a\", \"answer\": 3}", "pairs.jsonl(2): has no string \"answer\".");
        Refuses("{\"prompt\": \"a\"", "pairs.jsonl(2): is no JSON object (");
        Refuses("[]", "pairs.jsonl(2): is no JSON object.");
        Refuses("{\"prompt\": \"a\", \"answer\": \"\\ud800\"}", "pairs.jsonl(2): is no JSON object (");
        Refuses("{\"prompt\": \"a\", \"answer\": \"long beyond all\"}", "pairs.jsonl(2): has 16 tokens, rows of 8 take 9;");

        void Refuses(string line, string message)
        {
            File.WriteAllText(path, "{\"prompt\": \"a\", \"answer\": \"b\"}\n" + line);
            Assert.Contains(message, Assert.Throws<InvalidDataException>(() => AnswerSequences.FromFile(path, text => [.. text.Select(c => (int)c)], bytes)).Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Training_learns_the_answers()
    {
        using var run = new RunFolder();
        using TinyModel model = RunFolder.NewModel();
        var source = new AnswerSequences(Enumerable.Range(0, 20).Select(i => new PromptAnswer([200 + i % 3, i], [i + 1, i + 2])), new AnswerOptions { Length = RunFolder.Length, Vocabulary = 256 });
        var reports = new List<StepReport>();
        var trainer = new Trainer(model, source, source, run.Options(60) with { LearningRate = 3e-2f });
        trainer.StepTaken += reports.Add;
        TrainingResult result = trainer.Run(TestContext.Current.CancellationToken);
        Assert.Equal(8, reports[0].Tokens);                    // four rows of two answer tokens
        Assert.True(result.HeldOutLoss < 0.5, $"held-out loss {result.HeldOutLoss}");
    }

    private static (int[] Tokens, int[] Targets) Row(AnswerOptions options, int[] prompt, int[] answer) => Read(new AnswerSequences([new PromptAnswer(prompt, answer)], options), 0);

    private static (int[] Tokens, int[] Targets) Read(AnswerSequences source, long place)
    {
        (int[] tokens, int[] targets) = (new int[source.Length], new int[source.Length]);
        source.Read(place, tokens, targets);
        return (tokens, targets);
    }

    private static string Refuses(AnswerOptions options, int[] prompt, int[] answer) => Assert.Throws<InvalidDataException>(() => Row(options, prompt, answer)).Message;
}
