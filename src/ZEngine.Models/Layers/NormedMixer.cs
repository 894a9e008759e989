namespace ZEngine.Models;

/// <summary>A norm and the mixer behind it, as Zamba and Zamba2 name them.</summary>
internal sealed class NormedMixer : Module
{
    private readonly Parameter _norm;
    private readonly float _epsilon;

    public NormedMixer(Mixer mixer, long hidden, double epsilon)
    {
        _epsilon = (float)epsilon;
        _norm = Register("input_layernorm.weight", Mamba2Mixer.Vector(hidden, Initializer.Ones));
        Mixer = Register("mamba", mixer);
    }

    public Mixer Mixer { get; }

    public Tensor Forward(Tensor x, ScanState? state, SequenceLayout? layout) => Mixer.Forward(Ops.RmsNorm(x, _norm.Effective(), _epsilon), state, layout);
}
