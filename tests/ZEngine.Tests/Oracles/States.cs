using System.Text.Json;

namespace ZEngine.Tests.Oracles;

/// <summary>The outputs that ops with a state share.</summary>
internal static class States
{
    /// <summary>Adds the states at the ends: of each row, or of a packed row's last sequence, and then "final_states" of every sequence.</summary>
    public static Dictionary<string, OracleTensor<T>> With<T>(Dictionary<string, OracleTensor<T>> outputs, OracleTensor<T> states, JsonElement attrs)
    {
        if (attrs.Ints("cu_seqlens") is null)
        {
            outputs["final_state"] = states;
            return outputs;
        }
        int size = states.Count / states.Shape[0];
        outputs["final_state"] = new(states.Data[^size..], [1, .. states.Shape[1..]]);
        outputs["final_states"] = states;
        return outputs;
    }
}
