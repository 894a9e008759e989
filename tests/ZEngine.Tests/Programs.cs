namespace ZEngine.Tests;

/// <summary>How a program that lies beside the tests is started: by the <c>dotnet</c> that runs them, or, where they run on their own, by its own host.</summary>
internal static class Programs
{
    /// <summary>The words that start a program; its arguments come after them.</summary>
    public static string[] Command(string name)
    {
        string host = Environment.ProcessPath!, program = Path.Combine(AppContext.BaseDirectory, name);
        return Path.GetFileNameWithoutExtension(host) == "dotnet" ? [host, "exec", program + ".dll"] : [program + Path.GetExtension(host)];
    }
}
