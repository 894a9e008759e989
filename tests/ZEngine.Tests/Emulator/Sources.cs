using ZEngine.Interop;
using ZEngine.Tests.Interop;

namespace ZEngine.Tests.Emulator;

/// <summary>The kernels that only tests use.</summary>
internal static class Sources
{
    public static string Folder { get; } = Path.Combine(SourceTree.Root, "tests", "ZEngine.Tests", "Emulator", "kernels");

    public static string Read(string file) => File.ReadAllText(Path.Combine(Folder, file));

    public static ModuleImage Compile(string file, string architecture, params string[] options) =>
        Compiler.Compile(new CompileRequest { Name = file, Source = Read(file), Architecture = architecture, Options = options });
}
