using System.Globalization;
using ZEngine;
using ZEngine.CrashHost;
using ZEngine.Distributed;
using ZEngine.Training;

// A trainer that is there to be killed: CrashHost <run folder> <steps> <threads> <checkpoint interval>. Prints every checkpoint that it published.
if (args[0] == "ranks") return RankProgram.Run(args);
if (args[0] == "launch") return Launcher.Run([.. Self(), .. args.Skip(2)], int.Parse(args[1], CultureInfo.InvariantCulture), Console.Error.WriteLine);
(string folder, int steps) = (args[0], int.Parse(args[1], CultureInfo.InvariantCulture));
CpuDevice.Threads = int.Parse(args[2], CultureInfo.InvariantCulture);
bool isFinished;
using (var model = new TinyModel())
{
    model.Initialize(Device.Cpu, seed: 7);
    Trainer trainer = new CrashRun(folder, steps, int.Parse(args[3], CultureInfo.InvariantCulture)).CreateTrainer(model);
    trainer.CheckpointSaved += Console.WriteLine;
    trainer.Noticed += Console.Error.WriteLine;
    isFinished = trainer.Run().IsFinished;
}
GC.Collect();
GC.WaitForPendingFinalizers();
if (Device.Cpu.LiveBuffers != 0 || Device.Cpu.LeakedBuffers != 0)
{
    Console.Error.WriteLine($"{Device.Cpu.LiveBuffers} buffers are not given back, {Device.Cpu.LeakedBuffers} were leaked.");
    return 3;
}
return isFinished ? 0 : 1;

// The command that started this program: dotnet and the assembly, or its own host.
static string[] Self()
{
    string host = Environment.ProcessPath!;
    return Path.GetFileNameWithoutExtension(host) == "dotnet" ? [host, "exec", typeof(CrashRun).Assembly.Location] : [host];
}
