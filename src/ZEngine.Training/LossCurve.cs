using System.Globalization;
using System.Text;

namespace ZEngine.Training;

/// <summary>Draws the loss of a run as a picture: SVG, written by hand, readable in light and dark.</summary>
public static class LossCurve
{
    private const double Width = 860, Height = 460, Left = 64, Right = 24, Top = 52, Bottom = 52;
    private const int MaxPoints = 1200;

    /// <summary>Draws the record of a run folder.</summary>
    /// <param name="path">The picture.</param>
    /// <param name="metrics">The run's <c>metrics.jsonl</c>.</param>
    /// <param name="unigramEntropy">Drawn as a line of reference, nats a token; null for none.</param>
    /// <param name="title">Above the picture.</param>
    public static void WriteFrom(string path, string metrics, double? unigramEntropy = null, string title = "Loss")
    {
        (List<(long Step, double Loss)> train, List<(long Step, double Loss)> heldOut) = MetricsFile.ReadLosses(metrics);
        Write(path, train, heldOut, unigramEntropy, title);
    }

    /// <summary>Draws points: the training loss thin, its smoothed course over it, the held-out losses as dots.</summary>
    /// <param name="path">The picture.</param>
    /// <param name="train">Training loss by step, in nats a token.</param>
    /// <param name="heldOut">Held-out loss by step.</param>
    /// <param name="unigramEntropy">Drawn as a line of reference, nats a token; null for none.</param>
    /// <param name="title">Above the picture.</param>
    /// <exception cref="ArgumentException">There is no finite point to draw.</exception>
    public static void Write(string path, IReadOnlyList<(long Step, double Loss)> train, IReadOnlyList<(long Step, double Loss)> heldOut, double? unigramEntropy = null, string title = "Loss")
    {
        ArgumentNullException.ThrowIfNull(path);
        string picture = Draw(train, heldOut, unigramEntropy, title);
        Durable.Replace(path, stream => stream.Write(Encoding.UTF8.GetBytes(picture)));
    }

    internal static string Draw(IReadOnlyList<(long Step, double Loss)> train, IReadOnlyList<(long Step, double Loss)> heldOut, double? unigramEntropy, string title)
    {
        ArgumentNullException.ThrowIfNull(train);
        ArgumentNullException.ThrowIfNull(heldOut);
        ArgumentNullException.ThrowIfNull(title);
        (long Step, double Loss)[] raw = [.. train.Where(point => double.IsFinite(point.Loss))], dots = [.. heldOut.Where(point => double.IsFinite(point.Loss))];
        (long Step, double Loss)[] all = [.. raw, .. dots];
        if (all.Length == 0) throw new ArgumentException("LossCurve: there is no loss to draw.");
        (double Min, double Max, double Step) x = Ticks(0, Math.Max(1, all.Max(point => point.Step)), 8);
        (double Min, double Max, double Step) y = Ticks(Math.Min(all.Min(point => point.Loss), unigramEntropy ?? double.MaxValue), Math.Max(all.Max(point => point.Loss), unigramEntropy ?? 0), 6);
        x.Max = Math.Max(1, all.Max(point => point.Step));
        string X(double step) => Number(Left + (step - x.Min) / (x.Max - x.Min) * (Width - Left - Right));
        string Y(double loss) => Number(Height - Bottom - (loss - y.Min) / (y.Max - y.Min) * (Height - Top - Bottom));

        var svg = new StringBuilder();
        void Line(string text) => svg.Append(text).Append('\n');
        Line($"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {Number(Width)} {Number(Height)}" width="{Number(Width)}" height="{Number(Height)}" role="img" font-family="system-ui, sans-serif" font-size="12">""");
        Line($"<title>{Escape(title)}</title>");
        Line($"""<rect width="{Number(Width)}" height="{Number(Height)}" fill="#ffffff"/>""");
        Line($"""<text x="{Number(Left)}" y="24" font-size="15" font-weight="600" fill="#1f2328">{Escape(title)}</text>""");
        for (double loss = y.Min; loss <= y.Max + y.Step / 2; loss += y.Step)
        {
            Line($"""<line x1="{Number(Left)}" y1="{Y(loss)}" x2="{Number(Width - Right)}" y2="{Y(loss)}" stroke="#e6e8eb"/>""");
            Line($"""<text x="{Number(Left - 8)}" y="{Y(loss)}" dy="4" text-anchor="end" fill="#59636e">{Tick(loss, y.Step)}</text>""");
        }
        for (double step = x.Min; step <= x.Max; step += x.Step)
        {
            Line($"""<line x1="{X(step)}" y1="{Number(Height - Bottom)}" x2="{X(step)}" y2="{Number(Height - Bottom + 5)}" stroke="#59636e"/>""");
            Line($"""<text x="{X(step)}" y="{Number(Height - Bottom + 19)}" text-anchor="middle" fill="#59636e">{Tick(step, x.Step)}</text>""");
        }
        Line($"""<path d="M{Number(Left)} {Number(Top)}V{Number(Height - Bottom)}H{Number(Width - Right)}" fill="none" stroke="#59636e"/>""");
        Line($"""<text x="{Number((Left + Width - Right) / 2)}" y="{Number(Height - 12)}" text-anchor="middle" fill="#1f2328">step</text>""");
        Line($"""<text transform="translate(18 {Number((Top + Height - Bottom) / 2)}) rotate(-90)" text-anchor="middle" fill="#1f2328">nats per token</text>""");
        if (unigramEntropy is { } entropy)
            Line($"""<line x1="{Number(Left)}" y1="{Y(entropy)}" x2="{Number(Width - Right)}" y2="{Y(entropy)}" stroke="#9a6700" stroke-dasharray="6 4"/>""");
        if (raw.Length > 0)
        {
            Line($"""<polyline points="{Points(Thin(raw), X, Y)}" fill="none" stroke="#0969da" stroke-opacity="0.3" stroke-width="1"/>""");
            Line($"""<polyline points="{Points(Thin(Smooth(raw)), X, Y)}" fill="none" stroke="#0969da" stroke-width="2" stroke-linejoin="round"/>""");
        }
        foreach ((long step, double loss) in dots) Line($"""<circle cx="{X(step)}" cy="{Y(loss)}" r="3.5" fill="#cf222e"/>""");
        Legend(Line, raw.Length > 0, dots.Length > 0 ? dots[^1].Loss : null, unigramEntropy);
        Line("</svg>");
        return svg.ToString();
    }

    private static void Legend(Action<string> line, bool hasTrain, double? heldOut, double? entropy)
    {
        double at = Left;
        void Entry(string mark, string text)
        {
            line($"""<g transform="translate({Number(at)} 40)">{mark}<text x="24" y="4" fill="#1f2328">{text}</text></g>""");
            at += 40 + 7 * text.Length;
        }
        if (hasTrain) Entry("""<line x1="0" x2="18" stroke="#0969da" stroke-width="2"/>""", "train");
        if (heldOut is { } loss) Entry("""<circle cx="9" r="3.5" fill="#cf222e"/>""", $"held out, last {loss.ToString("F3", CultureInfo.InvariantCulture)}");
        if (entropy is { } reference) Entry("""<line x1="0" x2="18" stroke="#9a6700" stroke-dasharray="6 4"/>""", $"unigram entropy {reference.ToString("F3", CultureInfo.InvariantCulture)}");
    }

    /// <summary>An exponential mean over about a fiftieth of the run, without the pull of its start.</summary>
    private static (long Step, double Loss)[] Smooth((long Step, double Loss)[] points)
    {
        double decay = Math.Exp(-1 / Math.Max(1, points.Length / 50.0)), sum = 0, weight = 0;
        var smooth = new (long, double)[points.Length];
        for (int i = 0; i < points.Length; i++)
        {
            sum = decay * sum + (1 - decay) * points[i].Loss;
            weight = decay * weight + (1 - decay);
            smooth[i] = (points[i].Step, sum / weight);
        }
        return smooth;
    }

    /// <summary>So many points that the picture stays small, the first and the last among them.</summary>
    private static IEnumerable<(long Step, double Loss)> Thin((long Step, double Loss)[] points)
    {
        int stride = (points.Length + MaxPoints - 1) / MaxPoints;
        for (int i = 0; i < points.Length; i++)
            if (i % stride == 0 || i == points.Length - 1) yield return points[i];
    }

    private static string Points(IEnumerable<(long Step, double Loss)> points, Func<double, string> x, Func<double, string> y) =>
        string.Join(' ', points.Select(point => $"{x(point.Step)},{y(point.Loss)}"));

    /// <summary>Round steps of 1, 2 or 5 times a power of ten that cover a range in about so many parts.</summary>
    private static (double Min, double Max, double Step) Ticks(double min, double max, int parts)
    {
        double span = Math.Max(max - min, 1e-6 * Math.Max(1, Math.Abs(max))), power = Math.Pow(10, Math.Floor(Math.Log10(span / parts)));
        double step = power * (span / parts / power) switch { <= 1 => 1, <= 2 => 2, <= 5 => 5, _ => 10 };
        return (Math.Floor(min / step) * step, Math.Max(Math.Ceiling(max / step), Math.Floor(min / step) + 1) * step, step);
    }

    private static string Tick(double value, double step) => value.ToString("F" + Math.Max(0, (int)-Math.Floor(Math.Log10(step) + 1e-9)), CultureInfo.InvariantCulture);

    private static string Number(double value) => Math.Round(value, 2).ToString(CultureInfo.InvariantCulture);

    private static string Escape(string text) => text.Replace("&", "&amp;", StringComparison.Ordinal).Replace("<", "&lt;", StringComparison.Ordinal).Replace(">", "&gt;", StringComparison.Ordinal);
}
