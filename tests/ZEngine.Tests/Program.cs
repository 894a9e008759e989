using Xunit.MicrosoftTestingPlatform;
using Xunit.Runner.InProc.SystemConsole;
using ZEngine.Tests.Reporting;

namespace ZEngine.Tests;

/// <summary>What starts the tests: the runner, and where it found no test to run a failure.</summary>
internal static class Program
{
    private static async Task<int> Main(string[] args)
    {
        if (args.Contains("--server")) return await TestPlatformTestFramework.RunAsync(args, SelfRegisteredExtensions.AddSelfRegisteredExtensions);
        int failures = await ConsoleRunner.Run(args);
        return failures == 0 && CalmMessages.HasRunNothing ? 1 : failures;
    }
}
