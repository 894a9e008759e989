using System.Runtime.CompilerServices;

namespace ZEngine;

/// <summary>Binds the dimension letters of one op call to sizes, and rejects the first tensor that disagrees.</summary>
/// <remarks>
/// A dimension is a letter of the project's table, optionally minus a number (<c>K-1</c>); a word in lower case for a size that
/// has no letter (<c>rows</c>); a number; or <c>...</c> in front, for any leading axes.
/// </remarks>
internal ref struct ShapeContract(string op)
{
    private Sizes _letters;
    private string? _word0, _word1, _word2;
    private long _size0, _size1, _size2;
    private Device? _device;
    private DType? _activation;

    /// <summary>The size bound to a letter.</summary>
    public readonly long this[char letter] => _letters[letter - 'A'] - 1;

    /// <summary>An activation: on the device and of the type of the call's other activations.</summary>
    public void Require(Tensor tensor, string dims, [CallerArgumentExpression(nameof(tensor))] string name = "")
    {
        RequireDevice(tensor, name);
        if (!tensor.Backend.AcceptsActivation(tensor.DType))
            throw new ArgumentException($"{op}: {name} has type {tensor.DType}, which {op} does not take on {tensor.Device}.");
        _activation ??= tensor.DType;
        if (_activation != tensor.DType)
            throw new ArgumentException($"{op}: {name} must be {_activation} like the other activations, got {tensor.DType}.");
        RequireShape(tensor, dims, name);
    }

    /// <summary>An optional activation.</summary>
    public void Optional(Tensor? tensor, string dims, [CallerArgumentExpression(nameof(tensor))] string name = "")
    {
        if (tensor is not null) Require(tensor, dims, name);
    }

    /// <summary>An optional Float32 parameter.</summary>
    public void OptionalFloat32(Tensor? tensor, string dims, [CallerArgumentExpression(nameof(tensor))] string name = "")
    {
        if (tensor is not null) RequireFloat32(tensor, dims, name);
    }

    /// <summary>A Float32 parameter or state.</summary>
    public void RequireFloat32(Tensor tensor, string dims, [CallerArgumentExpression(nameof(tensor))] string name = "")
    {
        RequireDevice(tensor, name);
        if (tensor.DType != DType.Float32) throw new ArgumentException($"{op}: {name} must be Float32, got {tensor.DType}.");
        RequireShape(tensor, dims, name);
    }

    /// <summary>A weight matrix of any floating-point type.</summary>
    public void RequireWeight(Tensor tensor, string dims, [CallerArgumentExpression(nameof(tensor))] string name = "")
    {
        RequireDevice(tensor, name);
        if (!tensor.DType.IsFloat) throw new ArgumentException($"{op}: {name} must be a floating-point type, got {tensor.DType}.");
        RequireShape(tensor, dims, name);
    }

    /// <summary>Token numbers: Int32 or Int64.</summary>
    public void RequireIndex(Tensor tensor, string dims, [CallerArgumentExpression(nameof(tensor))] string name = "")
    {
        RequireDevice(tensor, name);
        if (tensor.DType is not (DType.Int32 or DType.Int64)) throw new ArgumentException($"{op}: {name} must be Int32 or Int64, got {tensor.DType}.");
        RequireShape(tensor, dims, name);
    }

    /// <summary>A packed layout fits a batch of 1 and the length bound to L.</summary>
    public readonly void RequireLayout(SequenceLayout? layout)
    {
        if (layout is null) return;
        if (this['B'] != 1) throw new ArgumentException($"{op}: packed sequences need B = 1, got {this['B']}.");
        if (layout.Length != this['L']) throw new ArgumentException($"{op}: cuSeqlens ends at {layout.Length} but L is {this['L']}.");
    }

    /// <summary>An optional state: Float32, of this very shape.</summary>
    public void OptionalStates(Tensor? tensor, scoped ReadOnlySpan<long> shape, [CallerArgumentExpression(nameof(tensor))] string name = "")
    {
        if (tensor is null) return;
        RequireDevice(tensor, name);
        if (tensor.DType != DType.Float32 || !tensor.Shape.SequenceEqual(shape))
            throw new ArgumentException($"{op}: {name} must be Float32 {Tensor.ShapeText(shape)}, one state per sequence, got {tensor}.");
    }

    /// <summary>A tensor of any type.</summary>
    public void RequireAny(Tensor tensor, string dims, string name)
    {
        RequireDevice(tensor, name);
        RequireShape(tensor, dims, name);
    }

    /// <summary>A tensor of any type and shape.</summary>
    public void RequireAny(Tensor tensor, [CallerArgumentExpression(nameof(tensor))] string name = "") => RequireDevice(tensor, name);

    /// <summary>Any other condition on the call.</summary>
    public readonly void Require(bool holds, string message)
    {
        if (!holds) throw new ArgumentException($"{op}: {message}");
    }

    /// <summary>Any other condition on the call; the message is put together only where it does not hold.</summary>
    public readonly void Require(bool holds, [InterpolatedStringHandlerArgument(nameof(holds))] ref ContractMessage message)
    {
        if (!holds) throw new ArgumentException($"{op}: {message.Text()}");
    }

    /// <summary>The tensors that follow may lie on another device than those before: all on the same.</summary>
    public void AllowOtherDevice() => _device = null;

    /// <summary>Binds a letter before the first tensor names it.</summary>
    public void Bind(char letter, long size) => _letters[letter - 'A'] = size + 1;

    private void RequireDevice(Tensor tensor, string name)
    {
        if (tensor is null) throw new ArgumentNullException(name, $"{op}: {name} is null.");
        if (tensor.IsDisposed) throw new ObjectDisposedException(name, $"{op}: {name} {Tensor.ShapeText(tensor.Shape)} was disposed, by hand or with the scope that owned it.");
        _device ??= tensor.Device;
        if (_device != tensor.Device) throw new ArgumentException($"{op}: {name} is on {tensor.Device} but the tensors before it are on {_device}.");
    }

    private void RequireShape(Tensor tensor, string dims, string name)
    {
        ReadOnlySpan<long> shape = tensor.Shape;
        ReadOnlySpan<char> rest = dims;
        int axis = 0;
        if (rest.StartsWith("..."))
        {
            rest = rest[3..].TrimStart();
            int named = rest.IsEmpty ? 0 : rest.Count(' ') + 1;
            if (shape.Length < named) throw Mismatch(tensor, dims, name, $"it has {Axes(shape.Length)}");
            axis = shape.Length - named;
        }
        while (!rest.IsEmpty)
        {
            int end = rest.IndexOf(' ');
            ReadOnlySpan<char> dim = end < 0 ? rest : rest[..end];
            rest = end < 0 ? default : rest[(end + 1)..];
            if (axis >= shape.Length) throw Mismatch(tensor, dims, name, $"it has {Axes(shape.Length)}");
            long size = shape[axis++], bound = BindDimension(dim, size);
            if (bound != size) throw Mismatch(tensor, dims, name, $"{dim} is {bound} but axis {axis - 1} is {size}");
        }
        if (axis != shape.Length) throw Mismatch(tensor, dims, name, $"it has {Axes(shape.Length)}");
    }

    /// <summary>The size that a dimension has: the one bound before, or from now on <paramref name="size"/>.</summary>
    private long BindDimension(ReadOnlySpan<char> dim, long size)
    {
        if (char.IsAsciiDigit(dim[0])) return long.Parse(dim, System.Globalization.CultureInfo.InvariantCulture);
        if (char.IsAsciiLetterLower(dim[0]))
        {
            if (_word0 is null || dim.SequenceEqual(_word0)) return BindWord(dim, size, ref _word0, ref _size0);
            if (_word1 is null || dim.SequenceEqual(_word1)) return BindWord(dim, size, ref _word1, ref _size1);
            return BindWord(dim, size, ref _word2, ref _size2);
        }
        long less = dim.Length > 1 ? long.Parse(dim[2..], System.Globalization.CultureInfo.InvariantCulture) : 0;
        ref long letter = ref _letters[dim[0] - 'A'];
        if (letter == 0) letter = size + less + 1;
        return letter - 1 - less;
    }

    private static long BindWord(ReadOnlySpan<char> dim, long size, ref string? word, ref long bound)
    {
        if (word is null) (word, bound) = (dim.ToString(), size);
        else if (!dim.SequenceEqual(word)) throw new InvalidOperationException($"ShapeContract: a call has at most three words, {dim} is the fourth.");
        return bound;
    }

    private static string Axes(int count) => count == 1 ? "1 axis" : $"{count} axes";

    private readonly ArgumentException Mismatch(Tensor tensor, string dims, string name, string why) =>
        new($"{op}: {name} must be [{dims.Replace(" ", ", ", StringComparison.Ordinal)}], got {Tensor.ShapeText(tensor.Shape)}: {why}.");

    [InlineArray(26)]
    private struct Sizes
    {
        private long _size;                                    // plus one; zero is unbound
    }
}

/// <summary>An interpolated text that is put together only where a condition fails: contracts stand on every op of every token.</summary>
[InterpolatedStringHandler]
internal ref struct ContractMessage
{
    private DefaultInterpolatedStringHandler _text;

    public ContractMessage(int literalLength, int formattedCount, bool holds, out bool isNeeded)
    {
        isNeeded = !holds;
        if (isNeeded) _text = new DefaultInterpolatedStringHandler(literalLength, formattedCount, System.Globalization.CultureInfo.InvariantCulture);
    }

    public void AppendLiteral(string text) => _text.AppendLiteral(text);

    public void AppendFormatted<T>(T value) => _text.AppendFormatted(value);

    public string Text() => _text.ToStringAndClear();
}
