namespace ZEngine.Training;

/// <summary>What is done with a prompt and answer that do not fit into a row.</summary>
public enum OverlongRule
{
    /// <summary>It is an error.</summary>
    Refuse,
    /// <summary>The answer is cut at its end, and counted. A prompt that leaves no room for one token of the answer is an error all the same.</summary>
    Cut,
}
