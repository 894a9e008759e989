namespace ZEngine;

/// <summary>A part of a model: named parameters and named child modules.</summary>
/// <remarks>
/// A module first declares its structure; <see cref="Initialize"/> or a loader gives the parameters memory afterwards, so that a
/// model of any size is built, counted and checked without allocating it.
/// </remarks>
public abstract class Module : IDisposable
{
    private readonly List<Parameter> _parameters = [];
    private bool _isChild;
    private readonly HashSet<string> _names = [];

    /// <summary>All parameters below this module, each once, in the order of declaration.</summary>
    public IReadOnlyList<Parameter> Parameters => _parameters;

    /// <summary>Number of elements of all parameters.</summary>
    public long ParameterCount
    {
        get
        {
            long count = 0;
            foreach (Parameter parameter in _parameters) count += parameter.Count;
            return count;
        }
    }

    /// <summary>Gives every parameter memory and its initial value, which depends on the seed and the parameter's name alone.</summary>
    /// <param name="device">Where the parameters live.</param>
    /// <param name="seed">The run's seed.</param>
    /// <param name="dtype">Type of the matrices; other parameters are Float32.</param>
    public void Initialize(Device device, ulong seed, DType dtype = DType.Float32)
    {
        foreach (Parameter parameter in _parameters) parameter.Initialize(device, seed, dtype);
    }

    /// <summary>Forgets all gradients.</summary>
    public void ClearGradients()
    {
        foreach (Parameter parameter in _parameters) parameter.ClearGradient();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Gives the parameters' memory back.</summary>
    protected virtual void Dispose(bool disposing)
    {
        if (!disposing) return;
        foreach (Parameter parameter in _parameters) parameter.Dispose();
    }

    /// <summary>Declares a parameter under a name.</summary>
    protected Parameter Register(string name, Parameter parameter)
    {
        ArgumentNullException.ThrowIfNull(parameter);
        if (parameter.Name.Length > 0) throw new ArgumentException($"Parameter {parameter.Name} already belongs to a module.");
        parameter.Name = name;
        Add(parameter);
        return parameter;
    }

    /// <summary>Declares a child module; its parameters' names get the prefix <c>name.</c></summary>
    /// <remarks>
    /// Call after the child has declared its own parameters, that is, when its constructor has run. A child may be shared: its
    /// parameters count once and keep the name of the first declaration.
    /// </remarks>
    protected T Register<T>(string name, T child) where T : Module
    {
        ArgumentNullException.ThrowIfNull(child);
        foreach (Parameter parameter in child.Parameters)
        {
            if (_parameters.Contains(parameter)) continue;
            if (!child._isChild) parameter.Name = $"{name}.{parameter.Name}";
            Add(parameter);
        }
        child._isChild = true;
        return child;
    }

    private void Add(Parameter parameter)
    {
        if (!_names.Add(parameter.Name)) throw new ArgumentException($"{GetType().Name} declares parameter {parameter.Name} twice.");
        _parameters.Add(parameter);
    }
}
