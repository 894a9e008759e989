using System.CommandLine;
using System.Globalization;
using System.Reflection;
using System.Runtime.InteropServices;
using Spectre.Console;
using ZEngine.Models;

namespace ZEngine.Cli;

/// <summary><c>zengine info</c></summary>
internal static class Info
{
    public static Command Command(Terminal terminal)
    {
        var model = new Argument<string?>("model") { Description = $"A model folder, a config.json, or one of {ModelChoice.Presets}; without it, the machine.", Arity = ArgumentArity.ZeroOrOne };
        var check = new Option<bool>("--check") { Description = "Also opens the weights, compares them with the configuration, and reads every one to find NaN and infinite numbers." };
        var command = new Command("info", "Describes the machine, or a model part by part without loading its weights.") { model, check };
        command.SetAction(parse =>
        {
            if (parse.GetValue(model) is { } name) DescribeModel(terminal, name);
            else if (parse.GetValue(check)) throw new UserError(ExitCode.Usage, "--check needs a model folder: zengine info MODEL --check.");
            else DescribeMachine(terminal);
            if (parse.GetValue(check)) CheckWeights(terminal, parse.GetRequiredValue(model)!);
        });
        return command;
    }

    private static void DescribeMachine(Terminal terminal)
    {
        Grid grid = new Grid().AddColumn().AddColumn();
        void Row(string name, string value) => grid.AddRow(new Text(name), new Text(value));
        string version = typeof(Tensor).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "unknown";
        Row("ZEngine", version);
        Row(".NET", RuntimeInformation.FrameworkDescription);
        Row("System", $"{RuntimeInformation.OSDescription}, {RuntimeInformation.ProcessArchitecture}");
        Row("Device", Device.Cpu.Name);
        Row("SIMD", CpuDevice.Simd);
        Row("Cores", string.Create(CultureInfo.InvariantCulture, $"{Environment.ProcessorCount}, of which {CpuDevice.Threads} are used (ZENGINE_THREADS)"));
        foreach ((string name, string value) in DeviceChoice.Describe()) Row(name, value);
        Row("Memory", $"{Bytes(GC.GetGCMemoryInfo().TotalAvailableMemoryBytes)} for this process");
        terminal.Console().Write(grid);
    }

    private static void DescribeModel(Terminal terminal, string name)
    {
        using LanguageModel model = ModelChoice.Declare(name);
        Table table = new Table().Border(terminal.IsOutputRedirected ? TableBorder.Simple : TableBorder.Rounded).AddColumn("part");
        foreach (string column in (string[])["count", "parameters", "FLOPs/token", "state", "cache/token"]) table.AddColumn(new TableColumn(column).RightAligned());
        foreach (ModelPart part in model.Parts) table.AddRow(Row(part));
        table.AddEmptyRow().AddRow(Row(new ModelPart("together", 1, model.Parts.Sum(part => part.Parameters), model.Parts.Sum(part => part.FlopsPerToken),
            model.Parts.Sum(part => part.StateBytes), model.Parts.Sum(part => part.CacheBytesPerToken))));
        terminal.Line($"{model.GetType().Name}, vocabulary {model.VocabularySize:N0}, {model.ParameterCount:N0} parameters: {Bytes(4 * model.ParameterCount)} as float32, {Bytes(2 * model.ParameterCount)} as bfloat16.");
        terminal.Console().Write(table);
        terminal.Line($"FLOPs of the forward pass at context length 0; state and cache per sequence.");
        if (!ModelChoice.IsPreset(name) && model.Config.UnreadKeys is { Count: > 0 } unread) terminal.Note($"warning: {model.Config.Path}: nothing reads {string.Join(", ", unread)}.");
    }

    private static void CheckWeights(Terminal terminal, string name)
    {
        string folder = ModelChoice.FolderOf(name);
        using LanguageModel model = LanguageModel.Load(folder, Device.Cpu, isWritable: false);
        ModelChoice.RequireFinite(model, folder);
        terminal.Line($"The weights in {folder} are complete and finite.");
    }

    private static Text[] Row(ModelPart part) =>
    [
        new(part.Name), new(Count(part.Count)), new(Count(part.Parameters)), new(Count(part.FlopsPerToken)),
        new(part.StateBytes == 0 ? "" : Bytes(part.StateBytes)), new(part.CacheBytesPerToken == 0 ? "" : Bytes(part.CacheBytesPerToken)),
    ];

    private static string Count(long count) => count.ToString("N0", CultureInfo.InvariantCulture);

    private static string Bytes(long bytes) => bytes switch
    {
        >= 1L << 30 => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1L << 30):F2} GiB"),
        >= 1L << 20 => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1L << 20):F1} MiB"),
        >= 1L << 10 => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1L << 10):F1} KiB"),
        _ => $"{bytes} B",
    };
}
