namespace ZEngine.Tests;

/// <summary>How a program that lies beside the tests is started: by a host of its own where it has one, as in a bundle without .NET, else by <c>dotnet</c>.</summary>
internal static class Programs
{
    /// <summary>The words that start a program; its arguments come after them.</summary>
    public static string[] Command(string name)
    {
        string host = Environment.ProcessPath!, program = Path.Combine(AppContext.BaseDirectory, name);
        bool isDotnet = Path.GetFileNameWithoutExtension(host) == "dotnet";
        string own = OperatingSystem.IsWindows() ? program + ".exe" : program;
        return !isDotnet && File.Exists(own) ? [own] : [isDotnet ? host : "dotnet", "exec", program + ".dll"];
    }
}
