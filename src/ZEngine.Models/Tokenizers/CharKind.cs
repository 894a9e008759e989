namespace ZEngine.Models;

/// <summary>The four classes the split patterns tell apart; they exclude each other and cover everything.</summary>
internal enum CharKind : byte
{
    Other,
    Letter,
    Number,
    Space,
}
