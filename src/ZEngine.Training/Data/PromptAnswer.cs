namespace ZEngine.Training;

/// <summary>A prompt and the answer that is to be learned.</summary>
/// <param name="Prompt">Tokens that are read; at least one, the options' begin token included.</param>
/// <param name="Answer">Tokens that count; at least one, the options' end token included.</param>
public readonly record struct PromptAnswer(int[] Prompt, int[] Answer);
