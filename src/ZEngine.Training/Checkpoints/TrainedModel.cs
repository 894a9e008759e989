using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>A model, and the adapter that is trained with it or in its place, as a run optimises and stores them.</summary>
/// <remarks>
/// Where the adapter alone is trained, a checkpoint holds the adapter's files, the model's configuration and, in <c>base.json</c>, a hash
/// of the model's weights; the weights themselves do not change and are not written again.
/// </remarks>
internal sealed class TrainedModel
{
    private const string BaseFile = "base.json";

    private string? _fingerprint;

    public TrainedModel(LanguageModel model, LoraAdapter? adapter)
    {
        if (adapter is not null && (adapter.Model != model || !adapter.IsAttached)) throw new ArgumentException("Trainer: the adapter is not attached to the model.", nameof(adapter));
        // Updates are no parameters of the model: without their adapter neither optimizer nor checkpoint would see them.
        if (adapter is null && model.Parameters.FirstOrDefault(parameter => parameter.Update is not null) is { } changed)
            throw new ArgumentException($"Trainer: {changed} has a low-rank update, which the trainer does not train without its adapter; give it, or merge or detach it.", nameof(adapter));
        (Model, Adapter) = (model, adapter);
        Parameters = adapter is null ? model.Parameters : [.. model.Parameters, .. adapter.Parameters];
    }

    public LanguageModel Model { get; }

    public LoraAdapter? Adapter { get; }

    /// <summary>Those of the model and of the adapter, trainable or not.</summary>
    public IReadOnlyList<Parameter> Parameters { get; }

    /// <summary>What checkpoints record of the adapter beside its files.</summary>
    public string Description => Adapter is null ? "none" : FormattableString.Invariant($"lora(rank={Adapter.Options.Rank},alpha={Adapter.Options.Alpha},parameters={Adapter.Coverage.Covered})");

    private bool IsBaseFrozen => Adapter is { IsBaseFrozen: true };

    /// <summary>Copies what a checkpoint holds, as it is now.</summary>
    /// <param name="copies">Keeps the copies; must live until the result was called.</param>
    /// <returns>Writes it into a folder, on any thread.</returns>
    public Action<string> PrepareSave(TensorCopies copies)
    {
        SafetensorsTensor[] adapted = Adapter is null ? [] : [.. AdapterFiles.Tensors(Adapter).Select(copies.Copy)];
        string? fingerprint = IsBaseFrozen ? Fingerprint() : null;
        Action<string>? whole = IsBaseFrozen ? null : Model.PrepareSave(copies);
        return folder =>
        {
            if (Adapter is not null) AdapterFiles.Write(folder, Adapter, adapted);
            if (whole is not null)
            {
                whole(folder);
                return;
            }
            Model.Config.Save(Path.Combine(folder, ModelConfigFile.FileName));
            ModelConfigFile.Create([new("model_type", Model.Config.String("model_type")), new("sha256", fingerprint!)]).Save(Path.Combine(folder, BaseFile));
        };
    }

    /// <exception cref="InvalidDataException">The folder is of another model, or of one with another adapter or without.</exception>
    public void Read(string folder)
    {
        bool hasAdapter = File.Exists(Path.Combine(folder, AdapterFiles.ModelFile)), hasBase = !File.Exists(Path.Combine(folder, BaseFile));
        if (hasAdapter != Adapter is not null) throw new InvalidDataException($"{folder}: was trained {(hasAdapter ? "with an adapter, now there is none" : "without an adapter, now there is one")}.");
        if (hasBase == IsBaseFrozen) throw new InvalidDataException($"{folder}: was trained with {(hasBase ? "trainable" : "frozen")} weights beside the adapter, now they are {(hasBase ? "frozen" : "trainable")}.");
        if (!hasBase)
        {
            string path = Path.Combine(folder, BaseFile), stored = ModelConfigFile.Open(path).String("sha256");
            if (stored != Fingerprint()) throw new InvalidDataException($"{path}: the adapter was trained on a model whose weights have the hash {stored}, now it is {Fingerprint()}. Load that model.");
        }
        if (Adapter is not null) AdapterFiles.ReadValues(folder, Adapter);
        if (hasBase) ParameterFiles.Load(folder, Model.Parameters);
    }

    private string Fingerprint() => _fingerprint ??= BaseFingerprint.Of(Model);
}
