namespace ZEngine.Models;

/// <summary>Replaces every match of a pattern by a text; holds each token until it is whole.</summary>
internal sealed class ReplaceStage(SplitPattern pattern, string content, DecoderStage next) : WholeTokenStage(next)
{
    protected override void Token(string token) => Emit(pattern.Replace(token, content));
}
