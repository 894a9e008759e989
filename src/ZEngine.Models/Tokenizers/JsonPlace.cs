using System.Text.Json;

namespace ZEngine.Models;

/// <summary>A value in a JSON file that knows where it stands, so that every complaint names file and place.</summary>
internal readonly struct JsonPlace
{
    private readonly JsonElement _element;
    private readonly string _file;
    private readonly string _parent;
    private readonly string? _name;                             // in the parent, when that is an object
    private readonly int _index;                                // in the parent, when that is an array

    public JsonPlace(JsonElement root, string file) : this(root, file, "$", null, -1)
    {
    }

    private JsonPlace(JsonElement element, string file, string parent, string? name, int index = -1)
    {
        _element = element;
        _file = file;
        _parent = parent;
        _name = name;
        _index = index;
    }

    // Put together when asked for: a vocabulary has a hundred thousand places and usually no complaint.
    private string Path => _name is not null ? $"{_parent}.{_name}" : _index >= 0 ? $"{_parent}[{_index}]" : _parent;

    public JsonElement Element => _element;

    public bool IsNull => _element.ValueKind == JsonValueKind.Null;

    public string Raw => _element.GetRawText();

    public InvalidDataException Error(string message) => new($"{_file}: {Path}: {message}");

    public JsonPlace Expect(JsonValueKind kind) => _element.ValueKind == kind ? this
        : throw Error($"expected {Name(kind)}, found {Name(_element.ValueKind)}.");

    /// <summary>A member that must be there.</summary>
    public JsonPlace this[string name] => TryGet(name, out JsonPlace member) ? member : throw Error($"\"{name}\" is missing.");

    /// <summary>A member that may be missing.</summary>
    public bool TryGet(string name, out JsonPlace member)
    {
        bool found = Expect(JsonValueKind.Object)._element.TryGetProperty(name, out JsonElement value);
        member = new(value, _file, Path, name);
        return found;
    }

    /// <summary>A member that may be missing or null.</summary>
    public bool TryGetValue(string name, out JsonPlace member) => TryGet(name, out member) && !member.IsNull;

    public bool Bool(string name, bool otherwise) => TryGetValue(name, out JsonPlace member) ? member.AsBool() : otherwise;

    public bool AsBool() => _element.ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => throw Error($"expected true or false, found {Name(_element.ValueKind)}."),
    };

    /// <summary>A count or an id: not negative, and small enough that a damaged file cannot ask for absurd memory.</summary>
    public int AsCount(int most) => _element.ValueKind == JsonValueKind.Number && _element.TryGetInt32(out int value) && value >= 0 && value <= most
        ? value : throw Error($"expected a whole number from 0 to {most}.");

    public string AsString()
    {
        Expect(JsonValueKind.String);
        try
        {
            return _element.GetString()!;
        }
        catch (InvalidOperationException e)
        {
            throw new InvalidDataException($"{_file}: {Path}: the text is not valid Unicode.", e);
        }
    }

    /// <summary>A string of one character of the basic plane.</summary>
    public char AsChar() => AsString() is { Length: 1 } text ? text[0]
        : throw Error("expected a single character of the basic multilingual plane.");

    public JsonPlace[] Items()
    {
        Expect(JsonValueKind.Array);
        var items = new JsonPlace[_element.GetArrayLength()];
        string path = Path;
        int i = 0;
        foreach (JsonElement item in _element.EnumerateArray())
        {
            items[i] = new(item, _file, path, null, i);
            i++;
        }
        return items;
    }

    public List<(string Name, JsonPlace Value)> Members()
    {
        Expect(JsonValueKind.Object);
        string path = Path;
        var members = new List<(string, JsonPlace)>();
        try
        {
            foreach (JsonProperty member in _element.EnumerateObject())
                members.Add((member.Name, new(member.Value, _file, path, member.Name)));
        }
        catch (InvalidOperationException e)
        {
            throw new InvalidDataException($"{_file}: {Path}: a name is not valid Unicode.", e);
        }
        return members;
    }

    /// <summary>Refuses members this reader does not know, since each of them could change the meaning.</summary>
    public JsonPlace Only(params ReadOnlySpan<string> known)
    {
        foreach ((string name, JsonPlace value) in Members())
            if (!known.Contains(name)) throw value.Error("this setting is not supported.");
        return this;
    }

    private static string Name(JsonValueKind kind) => kind switch
    {
        JsonValueKind.Undefined => "nothing",
        JsonValueKind.True or JsonValueKind.False => "true or false",
        _ => kind.ToString().ToLowerInvariant(),
    };
}
