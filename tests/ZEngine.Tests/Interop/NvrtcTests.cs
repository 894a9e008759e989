using ZEngine.Interop;
using Xunit;

namespace ZEngine.Tests.Interop;

/// <summary>NVRTC for real: names, includes, errors, resources and the disk cache.</summary>
public sealed class NvrtcTests : IDisposable
{
    private const string Source = """
        #include "common/Twice.cuh"
        template <typename T> __global__ void scale(T* x) { x[threadIdx.x] = twice(x[threadIdx.x]); }
        """;

    private readonly string _folder = Path.Combine(Path.GetTempPath(), $"zengine-cache-{Guid.NewGuid():N}");

    private static readonly CompileRequest Request = new()
    {
        Name = "Scale.cu", Source = Source, NameExpressions = ["scale<float>", "scale<int>"],
        Includes = new Dictionary<string, string> { ["common/Twice.cuh"] = "template <typename T> __device__ T twice(T x) { return x + x; }" },
    };

    [Fact]
    public void Names_includes_cubin_lines_and_resources()
    {
        ModuleImage image = Compiler.Nvrtc.Compile(Request);
        Assert.Equal(0x7F, image.Cubin[0]);
        Assert.Contains(".file", image.Ptx, StringComparison.Ordinal);
        Assert.Contains("common/Twice.cuh", image.Ptx, StringComparison.Ordinal);
        string lowered = image.Lowered("scale<float>");
        Assert.Contains(lowered, image.Ptx, StringComparison.Ordinal);
        Assert.NotEqual(lowered, image.Lowered("scale<int>"));
        Assert.InRange(image.Resources[lowered].Registers, 4, 32);
        Assert.Equal(0, image.Resources[lowered].SpillStoreBytes);
    }

    [Fact]
    public void Shared_memory_and_spills_are_read_from_the_log()
    {
        ModuleImage image = Compiler.Compile("""
            extern "C" __global__ void __launch_bounds__(1024, 2) many(float* x)
            {
                __shared__ float s[64]; float v[96];
                for (int k = 0; k < 96; k++) v[k] = x[k * 1024 + threadIdx.x];
                s[threadIdx.x & 63] = v[5]; __syncthreads();
                for (int k = 0; k < 96; k++) for (int j = 0; j < 96; j += 7) v[k] = v[k] * v[j] + s[k & 63];
                for (int k = 0; k < 96; k++) x[k * 1024 + threadIdx.x] = v[k];
            }
            """);
        KernelResources r = image.Resources["many"];
        Assert.Equal((32, 256), (r.Registers, r.SharedBytes));
        Assert.True(r.SpillStoreBytes > 0 && r.SpillLoadBytes > 0 && r.StackBytes > 0);
    }

    /// <summary>NVRTC itself keeps -G for the rest of the process: this is what the second copy of the library is for.</summary>
    [Fact]
    public void A_debug_build_changes_nothing_that_is_compiled_later()
    {
        CompileRequest request = ZEngine.Cuda.KernelSources.Current.Request("Copy.cu", "sm_80", "copy_words<u8>", "copy_words<u32>", "convert<f32, bf16>");
        ModuleImage before = Compiler.Nvrtc.Compile(request), debug = Compiler.Nvrtc.Compile(Request with { Options = ["-G"] }), after = Compiler.Nvrtc.Compile(request);
        Assert.Contains(".target sm_80, debug", debug.Ptx, StringComparison.Ordinal);
        Assert.Equal(before.Ptx, after.Ptx);
        Assert.Equal(before.Resources, after.Resources);
    }

    [Fact]
    public void Errors_keep_file_and_line()
    {
        NvrtcException error = Assert.Throws<NvrtcException>(() => Compiler.Nvrtc.Compile(new CompileRequest { Name = "Broken.cu", Source = "\n\n__global__ void k() { undeclared = 1; }" }));
        Assert.StartsWith("Broken.cu(3): error:", error.Message, StringComparison.Ordinal);
        NvrtcException header = Assert.Throws<NvrtcException>(() => Compiler.Nvrtc.Compile(Request with { Includes = new Dictionary<string, string> { ["common/Twice.cuh"] = "\nint f() { return x; }" } }));
        Assert.Contains("common/Twice.cuh(2): error:", header.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Cache_hits_only_what_is_the_same()
    {
        var cache = new CompileCache(_folder);
        ModuleImage first = cache.Compile(Compiler.Nvrtc, Request), again = new CompileCache(_folder).Compile(Compiler.Nvrtc, Request);
        Assert.Equal((first.Ptx, first.Log), (again.Ptx, again.Log));
        Assert.Equal(first.Cubin, again.Cubin);
        Assert.Equal(first.Resources, again.Resources);
        Assert.Equal(first.LoweredNames, again.LoweredNames);
        Version version = Compiler.Nvrtc.Version;
        string path = cache.PathOf(version, Request);
        CompileRequest[] others =
        [
            Request with { Source = Source + " " }, Request with { Architecture = "sm_86" }, Request with { Options = ["-DX"] }, Request with { NameExpressions = ["scale<int>"] },
            Request with { Name = "Other.cu" }, Request with { Includes = new Dictionary<string, string> { ["common/Twice.cuh"] = "template <typename T> __device__ T twice(T x) { return 2 * x; }" } },
        ];
        Assert.All(others, other => Assert.NotEqual(path, cache.PathOf(version, other)));
        Assert.NotEqual(path, cache.PathOf(new Version(13, 0), Request));
    }

    [Fact]
    public void A_corrupt_entry_is_a_miss_and_is_replaced()
    {
        var cache = new CompileCache(_folder);
        cache.Compile(Compiler.Nvrtc, Request);
        string path = cache.PathOf(Compiler.Nvrtc.Version, Request);
        byte[] file = File.ReadAllBytes(path);
        foreach (int length in (int[])[0, 10, file.Length / 2])
        {
            File.WriteAllBytes(path, file[..length]);
            Assert.NotEmpty(cache.Compile(Compiler.Nvrtc, Request).Cubin);
        }
        file[^1] ^= 1;
        File.WriteAllBytes(path, file);
        Assert.NotEmpty(cache.Compile(Compiler.Nvrtc, Request).Cubin);
        Assert.Equal((0, 5), (cache.Hits, cache.Misses));
        cache.Compile(Compiler.Nvrtc, Request);
        Assert.Equal(1, cache.Hits);
    }

    [Fact]
    public void A_folder_that_cannot_be_written_only_costs_time()
    {
        Directory.CreateDirectory(_folder);
        string file = Path.Combine(_folder, "occupied");
        File.WriteAllText(file, "");
        // A file where the folder should be: as little writable as a read-only folder, for root too.
        Assert.NotEmpty(new CompileCache(Path.Combine(file, "modules")).Compile(Compiler.Nvrtc, Request).Cubin);
    }

    [Fact]
    public void Two_writers_at_once_leave_a_good_entry()
    {
        Parallel.For(0, 4, new ParallelOptions { MaxDegreeOfParallelism = 2 }, _ => Assert.NotEmpty(new CompileCache(_folder).Compile(Compiler.Nvrtc, Request).Cubin));
        var cache = new CompileCache(_folder);
        cache.Compile(Compiler.Nvrtc, Request);
        Assert.Equal(1, cache.Hits);
        Assert.Single(Directory.EnumerateFiles(_folder));
    }

    public void Dispose()
    {
        if (Directory.Exists(_folder)) Directory.Delete(_folder, recursive: true);
    }
}
