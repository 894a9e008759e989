using ZEngine.Emulator;
using ZEngine.Interop;
using ZEngine.Tests.Emulator.Forms;
using ZEngine.Tests.Emulator.Scenarios;

namespace ZEngine.Tests.Emulator;

/// <summary>Every instruction form that the compiler emits, for the product's kernels and for those of the tests, is held to its definition by an oracle.</summary>
public sealed class InventoryTests
{
    private static readonly string[][] Builds = [[], ["-G"], ["-use_fast_math"]];

    [Fact]
    public void Every_form_of_the_kernels_has_an_oracle()
    {
        Assert.NotEmpty(KernelTests.KernelFiles);
        RequireOracles([.. KernelScenario.All.SelectMany(scenario => scenario.Observed.Forms).Distinct()]);
    }

    [Fact]
    public void Every_form_of_the_test_kernels_has_an_oracle()
    {
        var observer = new EmulatorObserver();
        // The planted bugs are made into a correct and a faulty file by their own test.
        IEnumerable<ModuleImage> images =
            from path in Directory.GetFiles(Sources.Folder, "*.cu")
            where !path.EndsWith("PlantedBugs.cu", StringComparison.Ordinal)
            from options in Builds
            select Sources.Compile(Path.GetFileName(path), "sm_80", options);
        foreach (ModuleImage image in images.Append(PlantedBugTests.Correct.Value))
        {
            using var driver = new EmulatedCudaDriver(new EmulatorOptions { Observer = observer });
            driver.LoadModule(image);
        }
        Assert.True(observer.Forms.Count > 250, $"only {observer.Forms.Count} forms");
        RequireOracles(observer.Forms);
    }

    private static void RequireOracles(IReadOnlyCollection<string> forms)
    {
        string[] missing = [.. forms.Where(form => !OracleTables.ByForm.Contains(form))];
        Assert.True(missing.Length == 0, $"{missing.Length} of {forms.Count} forms have no oracle: {string.Join(", ", missing)}");
    }
}
