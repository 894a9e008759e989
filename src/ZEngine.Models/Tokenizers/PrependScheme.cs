namespace ZEngine.Models;

/// <summary>When a prefix goes before a piece.</summary>
internal enum PrependScheme
{
    Always,
    First,
    Never,
}
