namespace ZEngine.Bench;

/// <summary>One line of the table: what runs, and how much arithmetic and traffic the op cannot do without.</summary>
/// <param name="Op">Name of the op.</param>
/// <param name="Pass"><c>forward</c>, <c>train</c> (forward and backward together) or <c>decode</c>.</param>
/// <param name="Shape">Shape and what else matters, as printed.</param>
/// <param name="Flops">Floating-point operations of one run: a multiply-add counts two, elementary functions and masked elements none. Zero where traffic decides.</param>
/// <param name="Bytes">Bytes of operands and results of one run, each counted once per pass.</param>
/// <param name="Run">One run.</param>
public sealed record TableRow(string Op, string Pass, string Shape, double Flops, double Bytes, Action Run)
{
    /// <summary>Type of the weights, or of everything.</summary>
    public DType DType { get; init; } = DType.Float32;

    /// <summary>Threads of this row, or 0 for those of the whole run.</summary>
    public int Threads { get; init; }

    /// <summary>The same work by OpenBLAS, measured in turns with <see cref="Run"/>.</summary>
    public Action? Peer { get; init; }
}

/// <summary>A bench room: rows for the table beside the BenchmarkDotNet methods.</summary>
public interface IOpBench
{
    /// <summary>The rows. A row's tensors live until the next one is asked for.</summary>
    static abstract IEnumerable<TableRow> Rows();
}

/// <summary>Which part of a model's life a shape is taken from.</summary>
public enum Phase
{
    /// <summary>A step with batch 4 and 512 tokens.</summary>
    Train,

    /// <summary>One token of one sequence.</summary>
    Decode,
}
