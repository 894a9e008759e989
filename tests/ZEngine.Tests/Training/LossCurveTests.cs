using System.Globalization;
using System.Xml.Linq;
using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>The picture is valid, complete and inside its frame.</summary>
public sealed class LossCurveTests
{
    [Fact]
    public void Picture_has_every_part_inside_the_frame()
    {
        (long, double)[] train = [.. Enumerable.Range(1, 5000).Select(step => ((long)step, 2 + 3 * Math.Exp(-step / 400.0) + 0.2 * Math.Sin(step)))];
        string picture = LossCurve.Draw(train, [(0, 5.5), (2500, 2.1), (5000, 2.05)], 3.2, "A <small> model & its loss");
        XNamespace svg = "http://www.w3.org/2000/svg";
        XElement root = XDocument.Parse(picture).Root!;
        Assert.Equal("A <small> model & its loss", root.Element(svg + "title")!.Value);
        XElement[] lines = [.. root.Elements(svg + "polyline")];
        Assert.Equal(2, lines.Length);
        foreach (XElement line in lines)
        {
            string[] points = line.Attribute("points")!.Value.Split(' ');
            Assert.InRange(points.Length, 100, 1300);
            foreach (string point in points)
            {
                double[] xy = Array.ConvertAll(point.Split(','), text => double.Parse(text, CultureInfo.InvariantCulture));
                Assert.InRange(xy[0], 64, 836);
                Assert.InRange(xy[1], 52, 408);
            }
        }
        Assert.Equal(3, root.Elements(svg + "circle").Count());
        Assert.Contains("unigram entropy 3.200", picture, StringComparison.Ordinal);
        Assert.Contains("held out, last 2.050", picture, StringComparison.Ordinal);
        Assert.DoesNotContain("NaN", picture, StringComparison.Ordinal);
        Assert.Contains(root.Elements(svg + "text"), text => text.Value == "5000");
    }

    [Fact]
    public void Record_of_a_run_is_drawn()
    {
        using var run = new RunFolder();
        run.Train(run.Options(12));
        string path = Path.Combine(run.Path, "loss.svg");
        LossCurve.WriteFrom(path, Trainer.MetricsPath(run.Path), run.Windows(DataPart.HeldOut).UnigramEntropy());
        Assert.Equal(4, XDocument.Load(path).Root!.Elements().Count(element => element.Name.LocalName == "circle"));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void One_point_or_an_even_course_is_drawn_too(int count)
    {
        string picture = LossCurve.Draw([.. Enumerable.Repeat((1L, 2.5), count), (9, double.NaN)], [], null, "Loss");
        Assert.DoesNotContain("NaN", picture, StringComparison.Ordinal);
        XDocument.Parse(picture);
        Assert.Throws<ArgumentException>(() => LossCurve.Draw([(1, double.NaN)], [], null, "Loss"));
    }
}
