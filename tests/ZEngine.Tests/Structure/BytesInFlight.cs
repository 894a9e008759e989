using ZEngine.Cuda;
using ZEngine.Emulator.Driver;
using ZEngine.Interop;
using ZEngine.Tests.Interop;

namespace ZEngine.Tests.Structure;

/// <summary>
/// What a multiprocessor has under way from memory, by computation: its blocks, as registers, shared memory and the launch allow, times what each thread loads before
/// it waits. At least 32 KiB, for sm_80 and sm_90: the others have a quarter of the bandwidth for a multiprocessor, and fewer threads.
/// </summary>
public sealed class BytesInFlight
{
    private const int Least = 32 << 10, Row = 8 << 10, All = 32;

    /// <param name="File">The kernel's file.</param>
    /// <param name="Kernel">The instance, <c>T</c> standing for the type.</param>
    /// <param name="Threads">Of a block.</param>
    /// <param name="Blocks">Of a multiprocessor that the launch asks for at most.</param>
    /// <param name="Accesses">Of 16 bytes that a thread has under way, as the source has them.</param>
    /// <param name="Floats">Dynamic shared memory: floats for each element of a row of 8 KiB.</param>
    /// <param name="Rows">Dynamic shared memory: such rows.</param>
    private sealed record Case(string File, string Kernel, int Threads, int Blocks, int Accesses, int Floats = 0, int Rows = 0);

    private static readonly Case[] Cases =
    [
        new("CausalConv1d.cu", "causal_conv1d_forward<T, 4, true>", 128, All, 6),                             // of a ring of 7 chunks all but the one that is read
        new("CausalConv1d.cu", "causal_conv1d_backward<T, 4, true>", 128, All, 2 * 2),                        // x and dy, of 3 chunks
        new("StateUpdate.cu", "state_update<T, f32>", 256, All, 4),                                           // four channels of a warp
        new("StateUpdate.cu", "state_update<T, bf16>", 256, All, 4),
        new("RmsNorm.cu", "rms_norm_forward<T, true>", 256, All, 2, 1),
        new("RmsNorm.cu", "rms_norm_backward<T, true, 0>", 256, CudaBackend.RmsNormBlocks, 2 * 2, 1),
        new("RmsNorm.cu", "rms_norm_backward<T, true, 1>", 256, CudaBackend.RmsNormBlocks, 2 * 3, 1),
        new("RmsNorm.cu", "rms_norm_backward<T, true, 2>", 256, CudaBackend.RmsNormBlocks, 2 * 3, 1),
        new("Rope.cu", "rope<T>", 256, All, 2),                                                               // both halves
        new("GatedActivation.cu", "gated_activation_forward<T>", 256, 8, 2),
        new("GatedActivation.cu", "gated_activation_backward<T>", 256, 8, 3),
        new("AdamW.cu", "adamw", 256, All, 4),                                                                // p, g, m and v
        new("Elementwise.cu", "pointwise_forward<T>", 256, 8, 1),
        new("Elementwise.cu", "pointwise_backward<T>", 256, 8, 2),
        new("Elementwise.cu", "scale<T>", 256, 8, 1),
        new("Elementwise.cu", "pairwise_forward<T>", 256, 8, 2),
    ];

    public static TheoryData<string, string> Kernels => [.. from kernel in Cases from architecture in (string[])["sm_80", "sm_90"] select new TheoryDataRow<string, string>(kernel.Kernel, architecture)];

    [Theory, MemberData(nameof(Kernels))]
    public void Are_32_KiB_a_multiprocessor(string kernel, string architecture)
    {
        Case c = Cases.Single(c => c.Kernel == kernel);
        DeviceLimits limits = DeviceLimits.Of(int.Parse(architecture[3..], System.Globalization.CultureInfo.InvariantCulture));
        foreach ((string type, int size) in (ReadOnlySpan<(string, int)>)[("f32", 4), ("bf16", 2), ("f16", 2)])
        {
            string variant = kernel.Replace("<T", $"<{type}", StringComparison.Ordinal);
            ModuleImage image = Compiler.Compile(KernelSources.Current.Request(c.File, architecture, variant));
            KernelResources used = image.Resources[image.Lowered(variant)];
            int blocks = Math.Min(c.Blocks, limits.ActiveBlocks(c.Threads, used.Registers, used.SharedBytes + Row / size * 4 * c.Floats + Row * c.Rows)), bytes = blocks * c.Threads * 16 * c.Accesses;
            TestContext.Current.SendDiagnosticMessage($"{architecture} {variant}: {blocks} blocks, {bytes} bytes under way");
            Assert.True(bytes >= Least, $"{variant}: {blocks} blocks of {c.Threads} threads with {16 * c.Accesses} bytes each have {bytes} bytes under way, less than {Least} ({used})");
        }
    }
}
