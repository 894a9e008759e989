using System.Globalization;
using System.Runtime.InteropServices;
using ZEngine.Distributed;
using ZEngine.Interop;
using ZEngine.Training;

namespace ZEngine.CrashHost;

/// <summary>A rank that goes wrong on demand: <c>ranks folder steps fault rank step checkpointInterval</c>.</summary>
internal static class RankProgram
{
    private const int Preempted = 75;

    public static int Run(string[] args)
    {
        (string folder, string fault) = (args[1], args[3]);
        (int steps, int faultyRank, int faultyStep, int interval) = (Number(args[2]), Number(args[4]), Number(args[5]), Number(args[6]));
        CpuDevice.Threads = 1;
        using var stop = new CancellationTokenSource();
        using PosixSignalRegistration user = PosixSignalRegistration.Create((PosixSignal)Signals.User1, context =>
        {
            context.Cancel = true;
            stop.Cancel();
        });
        return World.Run(Console.Error.WriteLine, world =>
        {
            using var model = new TinyModel();
            model.Initialize(Device.Cpu, seed: 7);
            Trainer trainer = new CrashRun(folder, steps, interval).CreateTrainer(model, world.Communicator);
            int rank = world.Communicator.Rank;
            trainer.CheckpointSaved += checkpoint => { if (rank == 0) Console.WriteLine(checkpoint); };
            trainer.StepTaken += report =>
            {
                if (rank != faultyRank || report.Step != faultyStep) return;
                switch (fault)
                {
                    case "throw": throw new InvalidDataException("planted");
                    case "exit": Environment.Exit(0); break;
                    case "kill": Signals.Send(Environment.ProcessId, 9); Thread.Sleep(Timeout.Infinite); break;
                    case "stuck": Thread.Sleep(Timeout.Infinite); break;
                    case "null": FaultHandlers.ThrowNull(); break;
                }
            };
            TrainingResult result = trainer.Run(stop.Token);
            world.Communicator.Barrier();
            if (rank == 0 && result.IsFinished) File.WriteAllText(Path.Combine(folder, "DONE"), "");
            return result.IsFinished ? 0 : Preempted;
        }, (world, e) =>
        {
            Console.Error.WriteLine($"rank {world.Communicator.Rank}: {e.Message}");
            return (e is CommunicatorException ? World.LostExitCode : 3, e.Message);
        });
    }

    private static int Number(string text) => int.Parse(text, CultureInfo.InvariantCulture);
}
