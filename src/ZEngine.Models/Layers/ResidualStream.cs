namespace ZEngine.Models;

/// <summary>The hidden state of a stack of blocks, h ← h + block(RMS(h)), with the norm that the next block reads: each sum and the norm behind it are one op.</summary>
/// <param name="h">[B, L, D], what the stack begins with; it stays the caller's.</param>
/// <param name="norm">Weight of the first block's norm, or null where it reads h itself.</param>
/// <param name="epsilon">Of all norms.</param>
internal sealed class ResidualStream(Tensor h, Parameter? norm, float epsilon)
{
    private bool _ownsSum;

    /// <summary>h.</summary>
    public Tensor Sum { get; private set; } = h;

    /// <summary>RMS(h), or h where no norm follows.</summary>
    public Tensor Normed { get; private set; } = norm is null ? h : Ops.RmsNorm(h, norm.Effective(), epsilon);

    /// <summary>h ← h + y. Both results outlive the scope, and those before go, unless a tape needs them.</summary>
    /// <param name="scope">The scope in which y was made.</param>
    /// <param name="y">[B, L, D].</param>
    /// <param name="next">Weight of the norm that follows, or null for none.</param>
    /// <param name="scale">A factor of y's rows, where a norm follows; or null.</param>
    public void Add(TensorScope scope, Tensor y, Parameter? next, RowScale? scale = null)
    {
        (Tensor sum, Tensor normed) = (Sum, Normed);
        if (next is null) Sum = Normed = Ops.Add(sum, y);
        else (Normed, Sum) = Ops.AddRmsNorm(y, sum, next.Effective(), epsilon, scale);
        scope.Keep(Sum);
        scope.Keep(Normed);
        if (!ReferenceEquals(normed, sum)) TensorScope.Drop(normed);
        if (_ownsSum) TensorScope.Drop(sum);
        _ownsSum = true;
    }
}
