using Xunit.Runner.Common;
using Xunit.Sdk;
using ZEngine.Tests.Reporting;

[assembly: RegisterRunnerReporter(typeof(CalmReporter))]

namespace ZEngine.Tests.Reporting;

/// <summary><c>-reporter zengine</c>: one line per failure, skip and kill rate, and one line at the end.</summary>
public sealed class CalmReporter : IRunnerReporter
{
    public bool CanBeEnvironmentallyEnabled => false;
    public string Description => "one line per failing or skipped test, then the counts";
    public bool ForceNoLogo => true;
    public bool IsEnvironmentallyEnabled => false;
    public string RunnerSwitch => "zengine";

    public ValueTask<IRunnerReporterMessageHandler> CreateMessageHandler(IRunnerLogger logger, IMessageSink? diagnosticMessageSink) =>
        new(new CalmMessages(logger.LogRaw, isColored: !Console.IsOutputRedirected && string.IsNullOrEmpty(Environment.GetEnvironmentVariable("NO_COLOR"))));
}
