using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>The mean cross-entropy of the next token: pre-training, and supervised fine-tuning where prompts have targets of -100.</summary>
internal sealed class NextTokenObjective : Objective
{
    public override string Fingerprint => "next-token";

    public override Tensor Loss(LanguageModel model, Tensor tokens, Tensor targets) => Ops.CrossEntropy(model.Forward(tokens), targets);
}
