using ZEngine.Tests.Interop;

namespace ZEngine.Tests.Emulator;

/// <summary>The kernels that only tests use.</summary>
internal static class Sources
{
    public static string Read(string file) => File.ReadAllText(Path.Combine(Compiler.RepositoryRoot, "tests", "ZEngine.Tests", "Emulator", "kernels", file));
}
