namespace ZEngine.Models;

/// <summary>A norm and the mixer behind it, as Zamba and Zamba2 name them.</summary>
internal sealed class NormedMixer : Module
{
    public NormedMixer(Mixer mixer, long hidden)
    {
        Norm = Register("input_layernorm.weight", Mamba2Mixer.Vector(hidden, Initializer.Ones));
        Mixer = Register("mamba", mixer);
    }

    public Parameter Norm { get; }

    public Mixer Mixer { get; }
}
