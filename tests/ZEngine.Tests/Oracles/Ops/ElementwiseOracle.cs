using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>y = f(x), or y = f(a, b) with trailing axes aligned and axes of size 1 repeated; f is the attribute "function" (or "activation").</summary>
internal sealed class ElementwiseOracle : Oracle
{
    public override Dictionary<string, string> Letters => [];

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> x, JsonElement attrs)
    {
        string function = attrs.Text("function") ?? attrs.Text("activation") ?? throw new ArgumentException("No function.");
        if (x.Optional("x") is { } one) return new() { ["y"] = one.Select(value => Functions.Apply(function, value)) };

        OracleTensor<T> a = x["a"], b = x["b"];
        int[] shape = Broadcast(a.Shape, b.Shape);
        var y = new OracleTensor<T>(shape);
        for (int i = 0; i < y.Count; i++)
        {
            int[] index = Shapes.Unravel(i, shape);
            y[i] = Functions.Apply(function, a[Offset(index, a.Shape)], b[Offset(index, b.Shape)]);
        }
        return new() { ["y"] = y };
    }

    private static int[] Broadcast(int[] a, int[] b)
    {
        var shape = new int[Math.Max(a.Length, b.Length)];
        for (int axis = 1; axis <= shape.Length; axis++)                       // counted from the end
        {
            int sizeA = axis <= a.Length ? a[^axis] : 1, sizeB = axis <= b.Length ? b[^axis] : 1;
            if (sizeA != sizeB && sizeA != 1 && sizeB != 1) throw new ArgumentException($"{Shapes.Text(a)} and {Shapes.Text(b)} do not broadcast.");
            shape[^axis] = sizeA == 1 ? sizeB : sizeA;
        }
        return shape;
    }

    private static int Offset(int[] index, int[] shape)
    {
        int offset = 0;
        for (int axis = 0; axis < shape.Length; axis++)
            offset = offset * shape[axis] + (shape[axis] == 1 ? 0 : index[index.Length - shape.Length + axis]);
        return offset;
    }
}
