namespace ZEngine.Training;

/// <summary>A prompt with two answers, of which one is preferred.</summary>
/// <param name="Prompt">Tokens that are read; at least one, the options' begin token included.</param>
/// <param name="Chosen">Tokens of the preferred answer; at least one, the options' end token included.</param>
/// <param name="Rejected">Tokens of the other answer; likewise.</param>
public readonly record struct PreferencePair(int[] Prompt, int[] Chosen, int[] Rejected);
