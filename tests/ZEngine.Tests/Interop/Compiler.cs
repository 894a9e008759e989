using System.Diagnostics;
using ZEngine.Cuda;
using ZEngine.Interop;

namespace ZEngine.Tests.Interop;

/// <summary>The NVRTC of this machine; fetched into the cache folder where there is none. Tests of a bundle, which has packed kernels, are skipped without it.</summary>
internal static class Compiler
{
    private static readonly Lazy<Nvrtc> Loaded = new(Load);
    private static readonly CompileCache Cache = new();

    public static Nvrtc Nvrtc => Loaded.Value;

    public static ModuleImage Compile(CompileRequest request) => Cache.Compile(Nvrtc, request);

    public static ModuleImage Compile(string source, string architecture = "sm_80", params string[] options) =>
        Compile(new CompileRequest { Name = "test.cu", Source = source, Architecture = architecture, Options = options });

    /// <summary>A file of kernels/ with its headers.</summary>
    public static ModuleImage CompileKernel(string file, string architecture, params string[] names)
    {
        string folder = Path.Combine(SourceTree.Root, "kernels");
        return Compile(new CompileRequest
        {
            Name = file, Source = File.ReadAllText(Path.Combine(folder, file)), Architecture = architecture, NameExpressions = names,
            Includes = Directory.EnumerateFiles(Path.Combine(folder, "common")).ToDictionary(path => "common/" + Path.GetFileName(path), File.ReadAllText),
        });
    }

    private static Nvrtc Load()
    {
        try
        {
            return Nvrtc.Load();
        }
        catch (NativeLibraryException missing) when (PackedKernels.Own.Count > 0)
        {
            Assert.Skip($"This test compiles kernels, and the bundle brings no compiler: {missing.Message}");
            throw;
        }
        catch (NativeLibraryException) when (OperatingSystem.IsLinux())
        {
            string script = Path.Combine(SourceTree.Root, "tests", "fetch-cuda.sh"), folder = Path.Combine(NativeLibraries.CacheFolder, "nvrtc");
            using Process process = Process.Start(new ProcessStartInfo("bash", [script, "nvrtc", folder]) { RedirectStandardError = true, RedirectStandardOutput = true })!;
            string error = process.StandardError.ReadToEnd();
            process.WaitForExit();
            if (process.ExitCode != 0) throw new NativeLibraryException($"the tests need NVRTC, and it could not be fetched: {error}");
            return Nvrtc.Load();
        }
    }
}
