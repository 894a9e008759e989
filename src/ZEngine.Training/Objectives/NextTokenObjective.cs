using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>The mean cross-entropy of the next token: pre-training, and supervised fine-tuning where prompts have targets of -100. In training, a model's own losses are added.</summary>
internal sealed class NextTokenObjective : Objective
{
    public override string Fingerprint => "next-token";

    public override Tensor Loss(LanguageModel model, Tensor tokens, Tensor targets)
    {
        if (!Tape.IsRecording) return Ops.CrossEntropy(model.Forward(tokens), targets);
        (Tensor logits, Tensor? auxiliary) = model.ForwardWithLoss(tokens);
        Tensor loss = Ops.CrossEntropy(logits, targets);
        return auxiliary is null ? loss : Ops.Add(loss, auxiliary);
    }
}
