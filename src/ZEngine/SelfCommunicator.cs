namespace ZEngine;

/// <summary>The world of one rank: collectives are copies, on any device.</summary>
internal sealed class SelfCommunicator : Communicator
{
    public override int Rank => 0;

    public override int Size => 1;

    public override string Name => "one rank";

    public override Communicator? Split(int color, int key = 0) => color < 0 ? null : this;

    public override void Abort(int exitCode, string reason) { }

    protected override void Execute(Collective call)
    {
        if (call is not { Source: { } source, Destination: { } destination } || source.Address == destination.Address) return;
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        source.Backend.Copy(source.Reshape(-1), destination.Reshape(-1));
    }
}
