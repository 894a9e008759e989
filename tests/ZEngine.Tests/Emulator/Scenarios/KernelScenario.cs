using ZEngine.Emulator;

namespace ZEngine.Tests.Emulator.Scenarios;

/// <summary>
/// An ordinary test of kernels, as something that can be run again under other conditions: it builds its driver with the options it is given,
/// launches, copies back what the kernels computed and throws where that is wrong. Found by its type; each file of kernels/ needs one.
/// </summary>
internal abstract class KernelScenario
{
    private readonly Lazy<EmulatorObserver> _observed;

    protected KernelScenario() => _observed = new Lazy<EmulatorObserver>(() =>
    {
        var observer = new EmulatorObserver();
        Run(new EmulatorOptions { Observer = observer, Checks = EmulatorChecks.None });
        return observer;
    });

    /// <summary>The file: a name in kernels/, or in the folder of the emulator's own test kernels.</summary>
    public abstract string File { get; }

    /// <summary>What names it in a test.</summary>
    public virtual string Name => GetType().Name;

    /// <summary>Runs and compares. The driver must be made with these options, and its findings must not be caught.</summary>
    public abstract void Run(EmulatorOptions options);

    /// <summary>The same in parts that need nothing of each other, each with a driver of its own, so that what concerns one kernel can be run alone.</summary>
    public virtual IEnumerable<Action<EmulatorOptions>> Parts => [Run];

    /// <summary>What an unchecked run loads and launches; made once.</summary>
    public EmulatorObserver Observed => _observed.Value;

    /// <summary>Whether a kernel, by its mangled name, is of this file; an op may launch kernels of others.</summary>
    public virtual bool Owns(string kernel) => true;

    /// <summary>Instructions that can be deleted unnoticed, and why: of kernels whose name contains a text, from source lines that contain one.</summary>
    public virtual IEnumerable<Survivor> Survivors => [];

    /// <summary>All scenarios of this assembly.</summary>
    public static IReadOnlyList<KernelScenario> All { get; } =
    [
        .. from type in typeof(KernelScenario).Assembly.GetTypes()
           where type.IsSubclassOf(typeof(KernelScenario)) && !type.IsAbstract
           orderby type.Name
           select (KernelScenario)Activator.CreateInstance(type)!,
    ];

    public static KernelScenario Named(string name) => All.Single(scenario => scenario.Name == name);
}

/// <summary>A synchronising instruction whose deletion changes nothing that anyone could see.</summary>
/// <param name="Kernel">Part of the kernel's name.</param>
/// <param name="Line">Part of the source line.</param>
/// <param name="Reason">Why it is not needed there.</param>
/// <param name="Most">In how many places of one kernel; a line of an unrolled loop stands in several.</param>
internal sealed record Survivor(string Kernel, string Line, string Reason, int Most = 1);
