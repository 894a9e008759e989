using System.Globalization;
using ZEngine;
using ZEngine.CrashHost;
using ZEngine.Training;

// A trainer that is there to be killed: CrashHost <run folder> <steps>. Prints every checkpoint that it published.
string folder = args[0];
int steps = int.Parse(args[1], CultureInfo.InvariantCulture);
CpuDevice.Threads = args.Length > 2 ? int.Parse(args[2], CultureInfo.InvariantCulture) : 1;
using var model = new TinyModel();
model.Initialize(Device.Cpu, seed: 7);
CrashRun run = new(folder, steps);
Trainer trainer = run.CreateTrainer(model);
trainer.CheckpointSaved += checkpoint => Console.WriteLine(checkpoint);
return trainer.Run().IsFinished ? 0 : 1;
