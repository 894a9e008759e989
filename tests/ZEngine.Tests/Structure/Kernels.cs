using System.Collections.Concurrent;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Text.RegularExpressions;
using ZEngine.Cuda;
using ZEngine.Interop;
using ZEngine.Tests.Interop;

namespace ZEngine.Tests.Structure;

/// <summary>What every kernel file must have: a header with its fields, argument structures equal on both sides, and machine code without spills on every architecture.</summary>
public sealed partial class Kernels
{
    private static readonly string[] Fields = ["Computes", "Source", "Method", "Layout", "Launch", "Traffic", "Precision", "Limits", "Variants"];

    public static TheoryData<string> Files => [.. KernelSources.Current.Names];

    private static readonly (string File, string Architecture)[] Pairs =
        [.. from file in KernelSources.Current.Names from architecture in (string[])["sm_80", "sm_86", "sm_89", "sm_90"] select (file, architecture)];

    public static TheoryData<string, string> Assemblies => [.. from pair in Pairs select new TheoryDataRow<string, string>(pair.File, pair.Architecture)];

    /// <summary>What the compiler made of an instance.</summary>
    private sealed record Code(bool IsEmpty, KernelResources Resources, string[] FloatAtomics);

    /// <summary>All that launches can ask for, those of the emulator's architecture first.</summary>
    private static readonly (string File, string Variant, string Architecture)[] Instances =
        [.. from pair in Pairs orderby pair.Architecture from variant in Variants(pair.File, pair.Architecture) select (pair.File, variant, pair.Architecture)];

    private static readonly ConcurrentDictionary<(string File, string Variant, string Architecture), Lazy<Code>> Compiled = [];

    private static int s_next = -1;

    /// <summary>Each instance is a request of its own, as launches make them, so that they and every test find in the cache what one of them has compiled.</summary>
    private static Code CodeOf((string File, string Variant, string Architecture) instance) => Compiled.GetOrAdd(instance, i => new Lazy<Code>(() =>
    {
        ModuleImage image = Compiler.Compile(KernelSources.Current.Request(i.File, i.Architecture, i.Variant));
        return new Code(image.Cubin.Length == 0, image.Resources[image.Lowered(i.Variant)], [.. FloatAtomicPattern().Matches(image.Ptx).Select(match => match.Value)]);
    })).Value;

    private static void CompileRest()
    {
        for (int i; (i = Interlocked.Increment(ref s_next)) < Instances.Length;)
        {
            try
            {
                _ = CodeOf(Instances[i]);
            }
            catch (Exception)
            {
                // It is thrown again where the test asks for the instance.
            }
        }
    }

    /// <summary>Where nothing is cached, compiling takes minutes on all cores. Most tests have need of one core: from their beginning on, what they leave idle compiles.</summary>
    internal static void CompileAhead()
    {
        for (int core = 0; core < Environment.ProcessorCount; core++)
            new Thread(() =>
            {
                IdlePriority.Take();
                CompileRest();
            }) { IsBackground = true, Name = "compiler" }.Start();
    }

    [Theory, MemberData(nameof(Files))]
    public void Header_has_its_fields_in_order(string file)
    {
        string[] lines = [.. KernelSources.Current[file].Split('\n').TakeWhile(line => line.StartsWith("//", StringComparison.Ordinal))];
        Assert.Equal($"// {file}", lines[0]);
        string[] found = [.. from line in lines let match = FieldPattern().Match(line) where match.Success select match.Groups[1].Value];
        Assert.Equal(Fields, found);
    }

    [Theory, MemberData(nameof(Files))]
    public void Lists_its_instances(string file)
    {
        HashSet<string> variants = KernelSources.Current.Variants[file];
        Assert.NotEmpty(variants);
        string[] kernels = [.. from Match match in KernelPattern().Matches(KernelSources.Current[file]) select match.Groups[1].Value];
        Assert.Equal(kernels.Order(), variants.Select(variant => variant.Split('<')[0]).Distinct().Order());
    }

    public static TheoryData<string> FilesAndHeaders => [.. KernelSources.Current.Names, .. KernelSources.Current.Includes.Keys];

    [Theory, MemberData(nameof(FilesAndHeaders))]
    public void Arguments_are_the_same_on_both_sides(string file)
    {
        foreach (Match match in StructPattern().Matches(KernelSources.Current[file]))
        {
            string name = match.Groups[1].Value;
            Type type = Mirror(name) ?? throw new InvalidOperationException($"{file}: {name} has no mirror in CudaBackend");
            string[] inKernel = [.. FieldsOf(match.Groups[2].Value)];
            string[] inCode = [.. type.GetFields(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic).Select(field => $"{SizeOf(field.FieldType)} {char.ToLowerInvariant(field.Name[0])}{field.Name[1..]}")];
            Assert.Equal(inKernel.Select(field => field.ToUpperInvariant()), inCode.Select(field => field.ToUpperInvariant()));
        }
    }

    /// <summary>Registers that spill, stack frames, and code that cannot keep two blocks of its size on a multiprocessor are visible without a GPU.</summary>
    [Theory, MemberData(nameof(Assemblies))]
    public void Assembles_without_spills(string file, string architecture)
    {
        Parallel.For(0, Environment.ProcessorCount, _ => CompileRest());
        string[] variants = Variants(file, architecture);
        Dictionary<string, Code> code = variants.ToDictionary(variant => variant, variant => CodeOf((file, variant, architecture)));
        Assert.All(code.Values, made => Assert.False(made.IsEmpty));
        string[] faults = [.. from variant in variants let r = code[variant].Resources where r.StackBytes + r.SpillLoadBytes + r.SpillStoreBytes > 0 || r.Registers > 255 select $"{variant}: {r}"];
        if (faults.Length > 0) Assert.Fail(string.Join("; ", faults));
        string[] atomics = [.. code.Values.SelectMany(made => made.FloatAtomics).Distinct()];
        if (atomics.Length > 0) Assert.Fail($"the order of these additions is that of the schedule: {string.Join(", ", atomics)}");
        string[] greedy = [.. from variant in variants let limit = Registers(variant) let used = code[variant].Resources.Registers where used > limit select $"{variant}: {used} registers, more than {limit}"];
        if (greedy.Length > 0) Assert.Fail(string.Join("; ", greedy));
        TestContext.Current.SendDiagnosticMessage(string.Join("\n", variants.Select(variant => $"{architecture} {variant}: {code[variant].Resources.Registers} registers")));
    }

    /// <summary>The registers of a thread that a kernel may take; what waits for memory needs many threads at a time.</summary>
    private static int Registers(string variant) => variant.Split('<')[0] switch
    {
        "adamw" or "norm_squares" or "norm_total" or "rope" or "gated_activation_forward" or "gated_activation_backward" => 40,
        "rms_norm_forward" or "reduce_sums" => 48,
        "rms_norm_backward" or "cross_entropy_forward" or "cross_entropy_backward" or "causal_conv1d_forward" or "causal_conv1d_backward" => 64,
        "selective_scan_forward" or "selective_scan_state" => 96,
        "selective_scan_backward" => 168,
        "selective_state_update" => 64,
        "state_update" => variant.EndsWith("f32>", StringComparison.Ordinal) ? 64 : 80,
        "selective_state_project" => 128,
        "attention_backward" => 240,
        _ => 255,
    };

    private static string[] Variants(string file, string architecture) => [.. KernelSources.Current.Variants[file].Where(variant => IsAskedFor(variant, architecture))];

    private static int SharedBytes(string architecture) => architecture switch { "sm_80" => 163, "sm_86" or "sm_89" => 99, _ => 227 } << 10;

    /// <summary>Whether a launch on an architecture can ask for an instance: tiles of attention, and states of a pass of the dual scan's gradients, are chosen by the shared memory that there is.</summary>
    private static bool IsAskedFor(string variant, string architecture)
    {
        if (SweepPattern().Match(variant) is { Success: true } sweep)
        {
            DType type = sweep.Groups[1].Value switch { "bf16" => DType.BFloat16, "f16" => DType.Float16, _ => DType.Float32 };
            return Enumerable.Range(1, SsdPlan.MaxStates).Any(states =>
            {
                SsdSweepPlan plan = SsdSweepPlan.For(states, 64, 80, 1, type, 8, 2048, 64, 132, SharedBytes(architecture));
                return (plan.Slices.ToString(System.Globalization.CultureInfo.InvariantCulture), plan.Passes == 1 ? "true" : "false") == (sweep.Groups[2].Value, sweep.Groups[3].Value);
            });
        }
        if (AttentionPattern().Match(variant) is not { Success: true } match) return true;
        int Number(int group) => int.Parse(match.Groups[group].Value, System.Globalization.CultureInfo.InvariantCulture);
        (int width, int keys, int slice) = (Number(2), Number(3), match.Groups[4].Success ? Number(4) : Number(3));
        return Enumerable.Range(1, width).Any(p =>
        {
            var sizes = new AttentionSizes(1, 64, 64, 1, 1, p, IsPacked: false);
            AttentionPlan plan = match.Groups[1].Value == "forward" ? AttentionPlan.Forward(sizes, DType.BFloat16, int.Parse(architecture[3..], System.Globalization.CultureInfo.InvariantCulture))
                : AttentionPlan.Backward(sizes, DType.BFloat16, SharedBytes(architecture));
            return (plan.Width, plan.Keys, plan.Slice) == (width, keys, slice);
        });
    }

    /// <summary>No instance is listed that no architecture asks for.</summary>
    [Theory, MemberData(nameof(Files))]
    public void Every_instance_is_asked_for_somewhere(string file)
    {
        string[] idle = [.. KernelSources.Current.Variants[file].Where(variant => !Pairs.Any(pair => pair.File == file && IsAskedFor(variant, pair.Architecture)))];
        if (idle.Length > 0) Assert.Fail(string.Join(", ", idle));
    }

    [Fact]
    public void Kernels_have_names_of_their_own()
    {
        string[] twice = [.. KernelSources.Current.Variants.Values.SelectMany(variants => variants).GroupBy(variant => variant).Where(group => group.Count() > 1).Select(group => group.Key)];
        Assert.Empty(twice);
    }

    private static Type? Mirror(string name) =>
        typeof(CudaBackend).GetNestedType(name, BindingFlags.NonPublic) ?? typeof(CudaBackend).Assembly.GetType($"ZEngine.Cuda.{name}");

    private static IEnumerable<string> FieldsOf(string body)
    {
        foreach (string line in body.Split('\n'))
        {
            string code = line.Split("//")[0];
            if (code.Contains('(', StringComparison.Ordinal)) break;                        // members that are no data follow the fields
            foreach (string declaration in code.Split(';', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
            {
                Match match = DeclarationPattern().Match(declaration);
                if (!match.Success) continue;
                string type = match.Groups["type"].Value;
                foreach (string name in match.Groups["names"].Value.Split(','))
                    yield return $"{(name.Contains('[', StringComparison.Ordinal) ? "array" : name.Contains('*', StringComparison.Ordinal) || type.EndsWith('*') ? "8" : SizeOf(type))} {name.Split('[')[0].Trim(' ', '*')}";
            }
        }
    }

    private static string SizeOf(string type) => type switch
    {
        "i64" or "u64" or "f64" or "double" => "8",
        "i32" or "u32" or "f32" or "int" or "float" => "4",
        _ => type.Split('<')[0],
    };

    private static string SizeOf(Type type) => type.IsDefined(typeof(System.Runtime.CompilerServices.InlineArrayAttribute)) ? "array" : type.IsPrimitive ? Marshal.SizeOf(type).ToString(System.Globalization.CultureInfo.InvariantCulture) : type.Name;

    [GeneratedRegex(@"^attention_(forward|backward)<b?f16, (\d+), (\d+)(?:, (\d+))?>$")]
    private static partial Regex AttentionPattern();

    [GeneratedRegex(@"^ssd_scan_backward<(\w+), (\d), (\w+)>$")]
    private static partial Regex SweepPattern();

    [GeneratedRegex(@"^// ([A-Z][a-z]+) {2,}\S")]
    private static partial Regex FieldPattern();

    [GeneratedRegex(@"\b(?:red|atom)\.[\w.:]*\.(?:f16x2|f16|bf16x2|bf16|f32|f64)\b")]
    private static partial Regex FloatAtomicPattern();

    [GeneratedRegex(@"__global__ void (?:__(?:launch_bounds|maxnreg)__\([^)]*\)\s+)?(\w+)\(")]
    private static partial Regex KernelPattern();

    [GeneratedRegex(@"^struct (\w+)[^\n]*// mirrored[^\n]*\n\{\n(.*?)^\};", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex StructPattern();

    [GeneratedRegex(@"^(?:const )?(?<type>\w+(?:<\w+>)?\*?)(?: const)?\s*(?<names>[\w*, \[\]]+)$")]
    private static partial Regex DeclarationPattern();
}
