using System.Diagnostics;
using ZEngine.Cli;

namespace ZEngine.Tests.Cli;

/// <summary>The command in a folder of its own, with a text to learn from.</summary>
internal sealed class Zengine : IDisposable
{
    private static readonly string[] Words = ["state", "space", "scan", "chunk", "kernel", "token", "the", "of", "and", "shared", "block", "é"];

    private readonly string _folder = Directory.CreateTempSubdirectory("zengine-cli-").FullName;

    public Zengine()
    {
        var random = new RandomStream(17);
        File.WriteAllText(Path("text.txt"), string.Join(' ', Enumerable.Range(0, 3000).Select(i => Words[random.Bits(i) % (ulong)Words.Length])));
    }

    public string Text => Path("text.txt");

    public string Path(params string[] parts) => System.IO.Path.Combine([_folder, .. parts]);

    /// <summary>A tiny run into the folder <paramref name="run"/>.</summary>
    public string[] Train(string run, int steps, params string[] more) =>
    [
        "train", Text, "--model", "tiny-hybrid", "--steps", $"{steps}", "--batch", "2", "--length", "32", "--warmup", "3", "--held-out-block", "512",
        "--evaluation-interval", "50", "--evaluation-batches", "2", "--out", Path(run), .. more,
    ];

    /// <summary>Runs a command line in this process.</summary>
    public static (int Code, string Output, string Error) Run(string[] args, string input = "")
    {
        using StringWriter output = new(), error = new();
        int code = CommandLine.Run(args, new Terminal(new StringReader(input), output, error, CancellationToken.None));
        return (code, output.ToString(), error.ToString());
    }

    /// <summary>Runs a command line that has to succeed, and returns its output.</summary>
    public static string Succeed(params string[] args)
    {
        (int code, string output, string error) = Run(args);
        Assert.True(code == 0, $"exit code {code}: {error}{output}");
        return output;
    }

    /// <summary>The command line as another program starts it.</summary>
    public static string[] Program(params string[] args) => [.. Programs.Command("ZEngine.Cli"), .. args];

    /// <summary>Starts a command line as a process of its own.</summary>
    public static Process Start(params string[] args)
    {
        string[] program = Program(args);
        return Start(new ProcessStartInfo(program[0], program[1..]));
    }

    /// <summary>Starts a process whose output is read.</summary>
    public static Process Start(ProcessStartInfo start)
    {
        start.RedirectStandardOutput = start.RedirectStandardError = true;
        return Process.Start(start)!;
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);
}
