using Xunit;
using ZEngine.Tests.Ops;

namespace ZEngine.Tests.Oracles;

/// <summary>The tolerance rule lets float32 rounding pass and stops what is worse.</summary>
public sealed class CloseTests
{
    public static TheoryData<string> GoldenCases => [.. OpCase.GoldenNames()];

    private static float[] Floats(OracleTensor<double> x) => [.. x.Data.Select(value => (float)value)];

    /// <summary>Two sequences of roundings that the rule has not seen: honest code must pass, every tensor of every golden case, with activations of either type.</summary>
    [Theory, MemberData(nameof(GoldenCases))]
    public void Other_roundings_pass(string name)
    {
        OpCase c = OpCase.Golden(name);
        DType[] types = EngineOp.Takes(c.Op, "emulator bf16") ? [DType.Float32, DType.BFloat16] : [DType.Float32];
        foreach (DType type in types)
        for (ulong seed = 101; seed <= 102; seed++)
        {
            var reference = OracleReference.Of(c, type);
            OracleRun got = OracleRun.Dithered(reference.Case, seed, type);
            foreach (string output in c.Outputs.Keys) reference.CheckOutput(output, Floats(got.Outputs[output]));
            foreach (string input in c.InputGradients.Keys) reference.CheckInputGradient(input, Floats(got.InputGradients[input]));
        }
    }

    /// <summary>One element off by 2e-5 of the tensor's size, or all by 1e-5: far from a visible bug, and far from rounding in these cases.</summary>
    [Theory]
    [InlineData("ssd_groups", "x"), InlineData("ssd_groups", "A"), InlineData("selective_scan_full", "dt"), InlineData("attention_causal", "q")]
    [InlineData("rms_norm_gated_groups", "z"), InlineData("cross_entropy", "logits"), InlineData("moe_top2_norm", "router"), InlineData("conv1d_k4", "bias")]
    public void Planted_errors_fail(string name, string input)
    {
        var reference = OracleReference.Of(OpCase.Golden(name), DType.Float32);
        OracleTensor<double> want = reference.InputGradient(input);
        double size = Math.Sqrt(want.Data.Average(x => x * x));
        string? Problem(float[] got) => Close.Problem(input, null, got, want, reference.Rounded(run => run.InputGradients[input]));

        Assert.Null(Problem(Floats(want)));
        float[] element = Floats(want), scaled = Floats(want);
        element[element.Length / 2] += (float)(2e-5 * size);
        for (int i = 0; i < scaled.Length; i++) scaled[i] *= 1 + 1e-5f;
        Assert.NotNull(Problem(element));
        Assert.NotNull(Problem(scaled));
        if (want.Count > 1) Assert.NotNull(Problem([.. Floats(want).Reverse()]));
        Assert.NotNull(Problem(new float[want.Count]));
    }

    [Fact]
    public void Message_names_tensor_letters_and_worst_element()
    {
        OracleTensor<double> want = new([1, 2, 3, 4, 5, 6], 1, 2, 3);
        Assert.Equal("dB [B, L, N]: rel rms 1.6e-3 > 1.2e-7, worst at [b 0, l 1, n 0]: got 4.015, want 4",
            Close.Problem("dB", "B L N", [1, 2, 3, 4.015f, 5, 6], want, [want]));
        Assert.Equal("dB [1, 2, 3]: rel rms 1.6e-3 > 1.2e-7, worst at [0, 1, 0]: got 4.015, want 4",
            Close.Problem("dB", null, [1, 2, 3, 4.015f, 5, 6], want, [want]));
        Assert.Equal("dB [B, L, N]: got 2 values, want 6", Close.Problem("dB", "B L N", [1, 2], want, [want]));
    }

    [Fact]
    public void Worst_element_fails_where_the_mean_would_not()
    {
        OracleTensor<double> want = new(10_000), rounded = new(10_000);
        Array.Fill(want.Data, 1);
        Array.Fill(rounded.Data, 1 + 1e-6);
        float[] got = Floats(want);
        Assert.Null(Close.Problem("y", "D", got, want, [rounded]));
        got[77] += 5e-6f;
        Assert.StartsWith("y [D]: error 5.0e-6 > 2.2e-6 at [d 77]: got 1.000005", Close.Problem("y", "D", got, want, [rounded]));
    }

    [Fact]
    public void Values_that_are_not_finite_must_be_equal()
    {
        OracleTensor<double> want = new([1, double.NegativeInfinity], 2);
        Assert.Null(Close.Problem("lse", "L", [1, float.NegativeInfinity], want, [want]));
        Assert.Equal("lse [L]: not finite at [l 1]: got 3, want -Infinity", Close.Problem("lse", "L", [1, 3], want, [want]));
        Assert.Equal("lse [L]: not finite at [l 0]: got NaN, want 1", Close.Problem("lse", "L", [float.NaN, float.NegativeInfinity], want, [want]));
        Assert.NotNull(Close.Problem("lse", "L", [float.PositiveInfinity, float.NegativeInfinity], want, [want]));
        OracleTensor<double> nan = new([double.NaN], 1);
        Assert.NotNull(Close.Problem("y", "L", [float.NaN], nan, [nan]));
    }

    /// <summary>Outputs rounded to bfloat16 pass with its epsilon, and an error of two of its units does not.</summary>
    [Fact]
    public void Epsilon_is_that_of_the_dtype()
    {
        static float ToBFloat16(float x) => BitConverter.Int32BitsToSingle((BitConverter.SingleToInt32Bits(x) + 0x8000) & ~0xFFFF);
        OpCase c = OpCase.Golden("rms_norm").Quantize(ToBFloat16);
        var reference = new OracleReference(c);
        float[] y = [.. Floats(reference.Output("y")).Select(ToBFloat16)];
        reference.CheckOutput("y", y, Close.BFloat16Epsilon);
        int peak = Array.IndexOf(y, y.Max());
        y[peak] *= 1 + 4 / 128f;
        Assert.NotNull(Close.Problem("y", "B L D", y, reference.Output("y"), reference.Rounded(run => run.Outputs["y"]), Close.BFloat16Epsilon));
    }
}
