namespace ZEngine.Tests.Oracles;

/// <summary>A dense row-major array of numbers, indexed by up to four letters.</summary>
public sealed class OracleTensor<T>
{
    public OracleTensor(T[] data, params int[] shape)
    {
        if (data.Length != Shapes.Count(shape)) throw new ArgumentException($"{data.Length} values do not fill {Shapes.Text(shape)}.");
        (Data, Shape) = (data, shape);
    }

    public OracleTensor(params int[] shape) : this(new T[Shapes.Count(shape)], shape) { }

    public T[] Data { get; }
    public int[] Shape { get; }
    public int Rank => Shape.Length;
    public int Count => Data.Length;

    public ref T this[int i] => ref Data[i];
    public ref T this[int i, int j] => ref Data[i * Shape[1] + j];
    public ref T this[int i, int j, int k] => ref Data[(i * Shape[1] + j) * Shape[2] + k];
    public ref T this[int i, int j, int k, int l] => ref Data[((i * Shape[1] + j) * Shape[2] + k) * Shape[3] + l];

    public OracleTensor<TTo> Select<TTo>(Func<T, TTo> map) => new(Array.ConvertAll(Data, x => map(x)), Shape);
}
