namespace ZEngine.Tests.Oracles;

/// <summary>What <see cref="Var{T}"/> has done on this thread since the last <see cref="Reset"/>: per node two parents and two slopes.</summary>
/// <remarks>24 bytes a node in float64, 16 in float32, in blocks that never move; the largest golden case makes 8 million nodes.</remarks>
internal sealed class Trace<T> where T : struct, IReal<T>
{
    private readonly record struct Node(int A, int B, T SlopeA, T SlopeB);

    private const int Stored = -1;                             // in the place of a second parent
    private const int BlockBits = 18;
    private const int BlockSize = 1 << BlockBits;
    private const int KeptBlocks = 16;                         // what a reset keeps for the next run: 100 MB in float64

    [ThreadStatic] private static Trace<T>? s_current;

    private readonly List<Node[]> _blocks = [];
    private Node[] _block = [];
    private int _count, _free;

    private Trace() => Reset();

    public static Trace<T> Current => s_current ??= new();

    /// <summary>Nodes so far, "no node" included.</summary>
    public int Count => _count;

    public void Reset()
    {
        if (_blocks.Count > KeptBlocks) _blocks.RemoveRange(KeptBlocks, _blocks.Count - KeptBlocks);
        if (_blocks.Count == 0) _blocks.Add(new Node[BlockSize]);
        _block = _blocks[0];
        _free = _count = 1;                                    // node 0 is "no node"
    }

    public int Add(int a, T slopeA, int b, T slopeB)
    {
        if (_free == BlockSize) NextBlock();
        _block[_free++] = new Node(a, b, slopeA, slopeB);
        return _count++;
    }

    /// <summary>A node that a tensor keeps: its gradient is rounded as that tensor's gradient would be, once all of it has arrived.</summary>
    public int AddStored(int a) => Add(a, 1.0, Stored, default);

    private void NextBlock()
    {
        int index = _count >> BlockBits;
        if (index == _blocks.Count) _blocks.Add(new Node[BlockSize]);
        _block = _blocks[index];
        _free = 0;
    }

    /// <summary>∂(Σ seed·output)/∂node for every node, indexed by <see cref="Var{T}.Node"/>.</summary>
    /// <remarks>A node whose gradient is 0 is passed over, so that an infinite slope nobody asked for makes no NaN.</remarks>
    public T[] Gradients(IEnumerable<(Var<T> Output, T Seed)> seeds)
    {
        var g = new T[_count];
        foreach ((Var<T> output, T seed) in seeds)
            if (output.Node != 0) g[output.Node] += seed;

        for (int i = _count - 1; i > 0; i--)
        {
            T gradient = g[i];
            if (gradient <= 0.0 && gradient >= 0.0) continue;
            ref readonly Node node = ref _blocks[i >> BlockBits][i & (BlockSize - 1)];
            if (node.B == Stored) gradient = T.Store(gradient);
            if (node.A != 0) g[node.A] += gradient * node.SlopeA;
            if (node.B > 0) g[node.B] += gradient * node.SlopeB;
        }
        return g;
    }
}
