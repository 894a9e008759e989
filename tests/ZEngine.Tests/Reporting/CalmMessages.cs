using Xunit.Runner.Common;
using Xunit.Sdk;

namespace ZEngine.Tests.Reporting;

/// <summary>Turns what the runner says into lines.</summary>
internal sealed class CalmMessages(Action<string> writeLine, bool isColored) : IRunnerReporterMessageHandler
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, string> _names = [];   // of the tests that run now, by their id
    private int _passed, _failed, _skipped;

    /// <summary>Whether a run has ended that had no test, as where a filter matches none.</summary>
    public static bool HasRunNothing { get; private set; }

    public bool OnMessage(IMessageSinkMessage message)
    {
        lock (_lock)
        {
            switch (message)
            {
                case ITestStarting test: _names[test.TestUniqueID] = test.TestDisplayName; break;
                case ITestFinished test: _names.Remove(test.TestUniqueID); break;
                case ITestPassed test:
                    _passed++;
                    Tell(test.Output);
                    break;
                case ITestFailed test: Fail(NameOf(test), test); break;
                case ITestSkipped test:
                    _skipped++;
                    writeLine($"SKIP {NameOf(test)}: {Fold(test.Reason)}");
                    break;
                case IErrorMessage error: Fail("the test program", error); break;
                case ITestMessage and IErrorMetadata error: Fail($"{NameOf((ITestMessage)message)}, clean-up", error); break;
                case ITestClassCleanupFailure error: Fail("clean-up of a test class", error); break;
                case ITestCollectionCleanupFailure error: Fail("clean-up of a test collection", error); break;
                case ITestAssemblyCleanupFailure error: Fail("clean-up of the test program", error); break;
                case TestExecutionSummaries:
                    HasRunNothing = _passed + _failed + _skipped == 0;
                    if (HasRunNothing) writeLine("FAIL the test program: no test of that name");
                    writeLine($"{_passed} passed, {_failed} failed{(_skipped > 0 ? $", {_skipped} skipped" : "")}");
                    break;
            }
        }
        return true;
    }

    public ValueTask DisposeAsync() => default;

    /// <summary>Of what passing tests write, the rates by which tests are tested themselves.</summary>
    private void Tell(string output)
    {
        foreach (string line in output.Split('\n')) if (line.StartsWith("kill rate ", StringComparison.Ordinal)) writeLine(line.TrimEnd());
    }

    private string NameOf(ITestMessage test) => _names.GetValueOrDefault(test.TestUniqueID, "a test without a name");

    private void Fail(string name, IErrorMetadata error)
    {
        _failed++;
        writeLine($"FAIL {name}: {MessageOf(error)}");
        // A recorded case is data: its line says which, and the code that compares is the same for all.
        if (name.Contains("Golden", StringComparison.Ordinal) || FrameOf(error) is not { } frame) return;
        writeLine(isColored ? $"    \e[2m{frame}\e[22m" : $"    {frame}");
    }

    /// <summary>The messages from the outermost exception to the innermost; assertions without their type.</summary>
    private static string MessageOf(IErrorMetadata error) => string.Join(" <- ", error.Messages.Select((text, i) =>
        error.ExceptionTypes[i] is { } type && !type.StartsWith("Xunit.", StringComparison.Ordinal) ? $"{type}: {Fold(text)}" : Fold(text)));

    private static string Fold(string text) => string.Join(' ', text.Split(['\r', '\n', '\t', ' '], StringSplitOptions.RemoveEmptyEntries));

    /// <summary>The innermost frame in this project's code, its path relative to the repository.</summary>
    private static string? FrameOf(IErrorMetadata error) => error.StackTraces
        .SelectMany(trace => trace?.Split('\n') ?? [])
        .Select(line => line.Trim())
        .FirstOrDefault(line => line.StartsWith("at ZEngine.", StringComparison.Ordinal))
        ?.Replace(SourceTree.Root, "", StringComparison.Ordinal);
}
