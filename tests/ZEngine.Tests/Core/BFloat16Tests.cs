namespace ZEngine.Tests.Core;

/// <summary>All 65536 values.</summary>
public sealed class BFloat16Tests
{
    [Fact]
    public void Every_value_survives_the_way_to_float_and_back()
    {
        for (int bits = 0; bits <= ushort.MaxValue; bits++)
        {
            var value = new BFloat16((ushort)bits);
            float wide = value;
            Assert.Equal((uint)bits << 16, BitConverter.SingleToUInt32Bits(wide));
            if (float.IsNaN(wide)) Assert.True(float.IsNaN((BFloat16)wide));
            else Assert.Equal(bits, ((BFloat16)wide).Bits);
        }
    }

    [Fact]
    public void Between_two_values_the_nearer_one_is_taken_and_on_a_tie_the_even_one()
    {
        for (uint bits = 0; bits < 0x7F80; bits++)             // the next above the largest is infinity, which is what rounding gives
        {
            uint low = bits << 16, even = bits + (bits & 1);
            foreach (uint sign in (ReadOnlySpan<uint>)[0, 0x8000])
            {
                uint at = low | sign << 16;
                Assert.Equal(sign | bits, Rounded(at + 0x7FFF));
                Assert.Equal(sign | even, Rounded(at + 0x8000));
                Assert.Equal(sign | bits + 1, Rounded(at + 0x8001));
                Assert.Equal(sign | bits + 1, Rounded(at + 0xFFFF));
            }
        }
    }

    [Fact]
    public void NaN_with_a_payload_that_is_cut_off_stays_NaN()
    {
        foreach (uint bits in (ReadOnlySpan<uint>)[0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000])
            Assert.True(float.IsNaN((BFloat16)BitConverter.UInt32BitsToSingle(bits)));
    }

    [Fact]
    public void Comparison_is_that_of_numbers()
    {
        BFloat16 zero = new(0), minusZero = new(0x8000), nan = (BFloat16)float.NaN, one = (BFloat16)1f;
        Assert.True(zero == minusZero && zero.GetHashCode() == minusZero.GetHashCode());
        Assert.True(nan != new BFloat16(nan.Bits) && one != zero);
        Assert.Equal("1.5", ((BFloat16)1.5f).ToString());
    }

    private static uint Rounded(uint bits) => ((BFloat16)BitConverter.UInt32BitsToSingle(bits)).Bits;
}
