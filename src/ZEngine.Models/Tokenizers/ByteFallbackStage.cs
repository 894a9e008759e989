using System.Text;

namespace ZEngine.Models;

/// <summary>Turns runs of <c>&lt;0xAB&gt;</c> tokens into text. A run that is not UTF-8 gives one U+FFFD per byte.</summary>
internal sealed class ByteFallbackStage(DecoderStage next) : WholeTokenStage(next)
{
    private readonly List<byte> _run = [];

    public override void End()
    {
        EndRun();
        Next.End();
    }

    protected override void Token(string token)
    {
        if (token.Length == 6 && token.StartsWith("<0x", StringComparison.Ordinal) && token[5] == '>'
            && char.IsAsciiHexDigit(token[3]) && char.IsAsciiHexDigit(token[4]))
        {
            _run.Add(Convert.ToByte(token.Substring(3, 2), 16));
            return;
        }
        EndRun();
        Emit(token);
    }

    private void EndRun()
    {
        if (_run.Count == 0) return;
        byte[] bytes = [.. _run];
        _run.Clear();
        if (System.Text.Unicode.Utf8.IsValid(bytes)) Emit(Encoding.UTF8.GetString(bytes));
        else foreach (byte _ in bytes) Emit("\uFFFD");
    }
}
