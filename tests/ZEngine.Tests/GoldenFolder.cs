namespace ZEngine.Tests;

/// <summary>Where the golden cases lie: beside the test assembly, or in the folder that ZENGINE_GOLDEN names.</summary>
internal static class GoldenFolder
{
    public static string Path { get; } = Environment.GetEnvironmentVariable("ZENGINE_GOLDEN") is { Length: > 0 } set ? set : System.IO.Path.Combine(AppContext.BaseDirectory, "golden");
}
