using ZEngine.Tests.Ops;

namespace ZEngine.Tests.Oracles;

/// <summary>A recorded value that differs from the engine and from the oracle alike is a failure: neither can excuse it.</summary>
public sealed class WrongRecordTests
{
    [Theory]
    [InlineData("ssd_basic"), InlineData("selective_scan_basic"), InlineData("attention_softcap"), InlineData("rms_norm_odd"), InlineData("conv1d_k2_plain"), InlineData("cross_entropy"), InlineData("rope_partial")]
    public void Wrong_record_is_found(string name)
    {
        foreach (Func<OpCase, Dictionary<string, CaseTensor>> kind in (Func<OpCase, Dictionary<string, CaseTensor>>[])[c => c.Outputs, c => c.InputGradients])
        foreach (string tensor in kind(OpCase.Golden(name)).Keys)
        {
            OpCase wrong = OpCase.GoldenAnew(name);
            float[] values = kind(wrong)[tensor].Floats.Data;
            values[values.Length / 2] += 0.01f * MathF.Max(values.Max(MathF.Abs), 1e-3f);
            Assert.Contains(tensor[1..], Assert.ThrowsAny<Exception>(() => EngineOp.Check(wrong, "cpu")).Message);
        }
    }
}
