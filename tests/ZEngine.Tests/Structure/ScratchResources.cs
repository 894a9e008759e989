using ZEngine.Cuda;
using ZEngine.Tests.Interop;
namespace ZEngine.Tests.Structure;
public sealed class ScratchResources
{
    [Fact]
    public void All()
    {
        var text = new System.Text.StringBuilder();
        foreach (string file in (string[])["CausalConv1d.cu"])
        foreach (int arch in (int[])[80, 86, 89, 90])
        {
            var clock = System.Diagnostics.Stopwatch.StartNew();
            var image = Compiler.CompileKernel(file, $"sm_{arch}", [.. KernelSources.Current.Variants[file]]);
            text.AppendLine($"{file} sm_{arch} {clock.Elapsed.TotalSeconds:F1} s");
            foreach (var (name, r) in image.Resources) if (arch is 80 or 90 || r.SpillLoadBytes + r.SpillStoreBytes + r.StackBytes > 0) text.AppendLine($"   {name} {r}");
        }
        File.WriteAllText("/tmp/k1-resources.txt", text.ToString());
    }
}
