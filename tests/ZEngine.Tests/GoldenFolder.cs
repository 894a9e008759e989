namespace ZEngine.Tests;

/// <summary>Where the golden cases lie: <c>ZENGINE_GOLDEN</c>, or the copy beside the test program.</summary>
internal static class GoldenFolder
{
    public static string Path { get; } = Environment.GetEnvironmentVariable("ZENGINE_GOLDEN") is { Length: > 0 } folder
        ? folder : System.IO.Path.Combine(AppContext.BaseDirectory, "golden");

    /// <summary>The folders of the cases of one kind, <c>ops</c>, <c>models</c> or <c>tokenizers</c>; none where the kind is not there.</summary>
    public static IEnumerable<string> Cases(string kind)
    {
        string folder = System.IO.Path.Combine(Path, kind);
        return Directory.Exists(folder) ? Directory.GetDirectories(folder).Order(StringComparer.Ordinal) : [];
    }
}
