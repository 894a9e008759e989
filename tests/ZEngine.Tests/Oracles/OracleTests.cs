using System.Diagnostics;
using Xunit;

namespace ZEngine.Tests.Oracles;

/// <summary>The oracles reproduce what other implementations computed in float64.</summary>
public sealed class OracleTests
{
    public static TheoryData<string> GoldenCases => [.. OpCase.GoldenNames()];

    [Theory, MemberData(nameof(GoldenCases))]
    public void Oracle_equals_golden(string name)
    {
        OpCase c = OpCase.Golden(name);
        OracleRun run = OracleRun.InDouble(c);
        foreach ((string output, CaseTensor golden) in c.Outputs) AssertGolden($"{name}: {output}", run.Outputs[output], golden.Floats);
        foreach ((string input, CaseTensor golden) in c.InputGradients) AssertGolden($"{name}: d{input}", run.InputGradients[input], golden.Floats);
        if (c.OutputGradients.Count > 0)
            Assert.Equal(c.Inputs.Where(x => !x.Value.IsInteger).Select(x => x.Key).Order(), c.InputGradients.Keys.Order());
    }

    private static void AssertGolden(string name, OracleTensor<double> got, OracleTensor<float> golden)
    {
        Assert.Equal(golden.Shape, got.Shape);
        double peak = golden.Data.Where(float.IsFinite).Select(Math.Abs).DefaultIfEmpty().Max();
        double worst = 0, noise = 0;
        for (int i = 0; i < got.Count; i++)
        {
            double want = golden[i], ulp = Math.Abs(want) * Math.Pow(2, -23);
            double error = Math.Abs(got[i] - want);
            worst = Math.Max(worst, error / Math.Max(ulp, 1e-30 * peak));
            noise = Math.Max(noise, (error - ulp / 2) / peak);
        }
        Console.WriteLine($"GOLD {name} worst ulps {worst:G4} excess/peak {noise:G3}");
    }
}
