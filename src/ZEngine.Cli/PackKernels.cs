using System.CommandLine;
using ZEngine.Cuda;
using ZEngine.Interop;

namespace ZEngine.Cli;

/// <summary><c>zengine pack-kernels</c></summary>
internal static class PackKernels
{
    public static Command Command(Terminal terminal)
    {
        var file = new Argument<string>("file") { Description = "The pack to write." };
        var kernels = new Option<string?>("--only") { Description = "Of the kernel files only those whose name contains the word.", HelpName = "WORD" };
        var command = new Command("pack-kernels", "Compiles every instance of every kernel to PTX, for machines that have a driver and no NVRTC; builds embed it.") { file, kernels };
        command.SetAction(parse =>
        {
            string path = parse.GetRequiredValue(file), word = parse.GetValue(kernels) ?? "";
            Nvrtc nvrtc = Nvrtc.Load();
            // Complete or absent.
            string part = path + ".part";
            int count;
            using (FileStream stream = File.Create(part)) count = PackedKernels.Write(stream, nvrtc, PackedKernels.Architectures, name => name.Contains(word, StringComparison.OrdinalIgnoreCase));
            if (count == 0)
            {
                File.Delete(part);
                throw new UserError(ExitCode.Usage, $"--only {word}: no kernel file has this in its name.");
            }
            File.Move(part, path, overwrite: true);
            terminal.Line($"{count} instances by NVRTC {nvrtc.Version}, {new FileInfo(path).Length / 1024.0:F0} KiB, in {path}.");
            return ExitCode.Success;
        });
        return command;
    }
}
