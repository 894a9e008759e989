namespace ZEngine.Emulator;

/// <summary>
/// Of each grid only the first and the last blocks run: a means for tests of offsets. Tensors of more than 2³¹ elements, in memory that costs nothing until it is written, then cost what
/// their first and last elements do. What the blocks between would write stays as it was, copies and conversions of a device included.
/// </summary>
/// <param name="Count">Blocks at either end; a grid of no more than twice as many runs whole.</param>
/// <param name="Ticket">
/// Of a kernel, by its name and the bytes of its arguments: the address of the 32-bit counter from which its blocks take their numbers, or null where they have those of the grid. The
/// blocks left out count there too, as if each had taken a number and done nothing.
/// </param>
public sealed record OuterBlocks(long Count, Func<string, ReadOnlyMemory<byte>, ulong?>? Ticket = null);
