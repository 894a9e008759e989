namespace ZEngine.Tests;

/// <summary>Where the golden cases lie: <c>ZENGINE_GOLDEN</c>, or the copy beside the test program.</summary>
internal static class GoldenFolder
{
    public static string Path { get; } = Environment.GetEnvironmentVariable("ZENGINE_GOLDEN") is { Length: > 0 } folder
        ? folder : System.IO.Path.Combine(AppContext.BaseDirectory, "golden");
}
