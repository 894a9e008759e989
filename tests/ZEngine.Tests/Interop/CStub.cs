using System.ComponentModel;
using System.Diagnostics;
using System.Runtime.InteropServices;

namespace ZEngine.Tests.Interop;

/// <summary>A library built from a C file of this folder when it is first needed; tests are skipped, with the reason, where there is no C compiler.</summary>
internal sealed class CStub(string file)
{
    private readonly Lazy<(string? Path, string Reason)> _built = new(() => Build(file));

    /// <summary>Whether it could be built.</summary>
    public bool IsBuilt => _built.Value.Path is not null;

    /// <summary>The library; skips the test where it cannot be built.</summary>
    public string Path
    {
        get
        {
            (string? path, string reason) = _built.Value;
            Assert.SkipWhen(path is null, reason);
            return path!;
        }
    }

    public nint Symbol(string name) => NativeLibrary.GetExport(NativeLibrary.Load(Path), name);

    private static (string?, string) Build(string file)
    {
        string source = System.IO.Path.Combine(Compiler.RepositoryRoot, "tests", "ZEngine.Tests", "Interop", file);
        string library = System.IO.Path.Combine(System.IO.Path.GetTempPath(), $"zengine-stub-{Guid.NewGuid():N}.so");
        foreach (string compiler in (string[])["cc", "gcc", "clang"])
        {
            try
            {
                using Process process = Process.Start(new ProcessStartInfo(compiler, ["-shared", "-fPIC", "-O1", "-o", library, source, "-lpthread"]) { RedirectStandardError = true })!;
                string error = process.StandardError.ReadToEnd();
                process.WaitForExit();
                return process.ExitCode == 0 ? (library, "") : throw new InvalidOperationException(error);
            }
            catch (Win32Exception)
            {
                // Not this one; try the next.
            }
        }
        return (null, $"no C compiler (cc, gcc, clang) is on this machine, so {file} cannot be built");
    }
}
