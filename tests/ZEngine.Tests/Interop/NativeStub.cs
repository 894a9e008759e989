using System.Diagnostics;
using System.Runtime.InteropServices;

namespace ZEngine.Tests.Interop;

/// <summary>A native library in C beside these tests, compiled where the machine has a compiler.</summary>
internal sealed class NativeStub(string source)
{
    private readonly Lazy<(string? Path, string Reason)> _built = new(() => Build(source));

    /// <summary>Whether it could be built.</summary>
    public bool IsBuilt => _built.Value.Path is not null;

    /// <summary>The library's file; the running test is skipped where there is no C compiler.</summary>
    public string Path
    {
        get
        {
            Assert.SkipWhen(_built.Value.Path is null, _built.Value.Reason);
            return _built.Value.Path!;
        }
    }

    public nint Symbol(string name) => NativeLibrary.GetExport(NativeLibrary.Load(Path), name);

    private static (string?, string) Build(string source)
    {
        string file = System.IO.Path.Combine(SourceTree.Root, "tests", "ZEngine.Tests", "Interop", source);
        string library = System.IO.Path.Combine(System.IO.Path.GetTempPath(), $"zengine-stub-{Guid.NewGuid():N}.so");
        foreach (string compiler in (string[])["cc", "gcc", "clang"])
        {
            try
            {
                using Process process = Process.Start(new ProcessStartInfo(compiler, ["-shared", "-fPIC", "-O1", "-o", library, file, "-lpthread", "-lm"]) { RedirectStandardError = true })!;
                string error = process.StandardError.ReadToEnd();
                process.WaitForExit();
                return process.ExitCode == 0 ? (library, "") : throw new InvalidOperationException(error);
            }
            catch (System.ComponentModel.Win32Exception)
            {
                // Not this one; try the next.
            }
        }
        return (null, $"no C compiler (cc, gcc, clang) is on this machine, so {source} cannot be built");
    }
}
