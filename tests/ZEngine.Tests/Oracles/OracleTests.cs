using Xunit;

namespace ZEngine.Tests.Oracles;

/// <summary>The oracles against other implementations' values, and against the laws the ops obey.</summary>
public sealed class OracleTests
{
    public static TheoryData<string> GoldenCases => [.. OpCase.GoldenNames()];

    /// <summary>
    /// A golden value is a float64 rounded to float32, so half a unit in the last place is all that may lie between; and two float64 computations that
    /// sum in different orders differ by their own noise, taken as 1e-13 of the tensor's largest value (1e-14 is the most seen).
    /// </summary>
    [Theory(SkipTestWithoutData = true), MemberData(nameof(GoldenCases))]
    public void Oracle_equals_recorded_results(string name)
    {
        OpCase c = OpCase.Golden(name);
        OracleRun run = OracleRun.InDouble(c);
        foreach ((string output, CaseTensor golden) in c.Outputs) AssertRounds($"{name}: {output}", run.Outputs[output], golden.Floats);
        foreach ((string input, CaseTensor golden) in c.InputGradients) AssertRounds($"{name}: d {input}", run.InputGradients[input], golden.Floats);
        if (c.OutputGradients.Count > 0) Assert.Equal(run.InputGradients.Keys.Order(), c.InputGradients.Keys.Order());
    }

    private static void AssertRounds(string name, OracleTensor<double> got, OracleTensor<float> golden)
    {
        Assert.Equal(golden.Shape, got.Shape);
        double noise = 1e-13 * golden.Data.Where(float.IsFinite).Select(Math.Abs).DefaultIfEmpty().Max();
        for (int i = 0; i < got.Count; i++)
        {
            double halfUlp = (MathF.BitIncrement(Math.Abs(golden[i])) - (double)Math.Abs(golden[i])) / 2;
            if (got[i] == golden[i] || Math.Abs(got[i] - golden[i]) <= halfUlp + noise) continue;
            Assert.Fail($"{name} at {Shapes.Text(Shapes.Unravel(i, golden.Shape))}: got {got[i]:G17}, golden {golden[i]:G9}");
        }
    }

    [Fact]
    public void Tree_attention_equals_flat_attention()
    {
        CaseBuilder Keys(string op) => new CaseBuilder(op, "shards, one of them empty", seed: 5)
            .Normal("q", [2, 1, 4, 8]).Normal("k", [2, 23, 2, 8]).Normal("v", [2, 23, 2, 8]);
        OracleRun flat = OracleRun.InDouble(Keys("attention").Build());
        OracleRun tree = OracleRun.InDouble(Keys("tree_attention").With("shards", new[] { 0, 4, 4, 5, 23 }).Build());
        AssertEqual(flat, tree);
    }

    [Fact]
    public void Query_without_keys_gives_zero_and_minus_infinity()
    {
        OracleRun run = OracleRun.InDouble(new CaseBuilder("attention", "L > S: the first two queries see nothing", seed: 6)
            .With("causal", true).Normal("q", [1, 5, 2, 4]).Normal("k", [1, 3, 1, 4]).Normal("v", [1, 3, 1, 4]).Build());
        for (int l = 0; l < 5; l++)
        {
            Assert.Equal(l < 2, double.IsNegativeInfinity(run.Outputs["lse"][0, l, 0]));
            Assert.Equal(l < 2, run.Outputs["o"][0, l, 0, 0] == 0);
        }
        foreach (OracleTensor<double> gradient in run.InputGradients.Values) Assert.All(gradient.Data, x => Assert.True(double.IsFinite(x)));
    }

    /// <summary>Ops with a state, each with its sequence inputs.</summary>
    public static TheoryData<string> StatefulOps => ["selective_scan", "ssd", "causal_conv1d"];

    [Theory, MemberData(nameof(StatefulOps))]
    public void Packed_sequences_equal_separate_ones(string op)
    {
        int[] ends = [0, 1, 6, 14];
        OpCase packed = Cases.Stateful(op, length: 14, states: 3, seed: 7, ends);
        Dictionary<string, OracleTensor<double>> whole = OracleRun.InDouble(packed).Outputs;
        for (int i = 0; i < 3; i++)
        {
            OpCase one = Cases.Cut(packed, ends[i], ends[i + 1], state: i);
            Dictionary<string, OracleTensor<double>> alone = OracleRun.InDouble(one).Outputs;
            Assert.Equal(alone["y"].Data, Cases.Steps(whole["y"], ends[i], ends[i + 1]).Data);
            Assert.Equal(alone["final_state"].Data, Cases.Row(whole["final_states"], i).Data);
        }
        Assert.Equal(Cases.Row(whole["final_states"], 2).Data, whole["final_state"].Data);
    }

    [Theory, MemberData(nameof(StatefulOps))]
    public void Single_initial_state_belongs_to_first_packed_sequence(string op)
    {
        OpCase packed = Cases.Stateful(op, length: 9, states: 1, seed: 8, 0, 4, 9);
        Dictionary<string, OracleTensor<double>> whole = OracleRun.InDouble(packed).Outputs;
        OpCase first = Cases.Cut(packed, 0, 4, state: 0), second = Cases.Cut(packed, 4, 9, state: -1);
        Assert.Equal(OracleRun.InDouble(first).Outputs["final_state"].Data, Cases.Row(whole["final_states"], 0).Data);
        Assert.Equal(OracleRun.InDouble(second).Outputs["final_state"].Data, Cases.Row(whole["final_states"], 1).Data);
    }

    [Theory, MemberData(nameof(StatefulOps))]
    public void Split_sequence_equals_whole(string op)
    {
        OpCase all = Cases.Stateful(op, length: 11, states: 1, seed: 9);
        Dictionary<string, OracleTensor<double>> whole = OracleRun.InDouble(all).Outputs;
        Dictionary<string, OracleTensor<double>> head = OracleRun.InDouble(Cases.Cut(all, 0, 2, state: 0)).Outputs;
        OpCase tail = Cases.Cut(all, 2, 11, state: 0);
        tail.Inputs["initial_state"] = new(head["final_state"].Select(x => (float)x).Data, head["final_state"].Shape);
        OracleTensor<double> y = OracleRun.InDouble(tail).Outputs["y"], want = Cases.Steps(whole["y"], 2, 11);
        for (int i = 0; i < y.Count; i++) Assert.Equal(want[i], y[i], 1e-6);    // the carried state is rounded to float32
    }

    private static void AssertEqual(OracleRun want, OracleRun got)
    {
        foreach ((string name, OracleTensor<double> tensor) in want.Outputs.Concat(want.InputGradients))
        {
            OracleTensor<double> other = got.Outputs.GetValueOrDefault(name) ?? got.InputGradients[name];
            for (int i = 0; i < tensor.Count; i++) Assert.Equal(tensor[i], other[i], 1e-13);
        }
    }
}
