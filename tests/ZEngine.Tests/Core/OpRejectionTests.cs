using System.Reflection;
using System.Text.RegularExpressions;
using ZEngine.Tests.Ops;

namespace ZEngine.Tests.Core;

/// <summary>Every tensor of every public op, spoilt in every way that is no use: the call is rejected before any work, in words that name the op, the tensor and what is wrong.</summary>
public sealed class OpRejectionTests
{
    public static IEnumerable<TheoryDataRow<string, int>> Calls() =>
        OpCalls.All.Select((call, index) => new TheoryDataRow<string, int>(call.Method, index) { TestDisplayName = $"{call.Method}, call {index}" });

    [Fact]
    public void Every_public_op_and_every_tensor_of_it_is_here()
    {
        string[] missing =
        [
            .. typeof(ZEngine.Ops).GetMethods(BindingFlags.Public | BindingFlags.Static | BindingFlags.DeclaredOnly).Where(method => !OpCalls.WithoutTensors.Contains(Signature(method))).SelectMany(Missing),
        ];
        Assert.Empty(missing);
    }

    private static IEnumerable<string> Missing(MethodInfo method)
    {
        OpCall[] calls = [.. OpCalls.All.Where(call => call.Method == Signature(method))];
        if (calls.Length == 0) yield return Signature(method);
        foreach (ParameterInfo parameter in method.GetParameters().Where(parameter => Holds(parameter.ParameterType, typeof(Tensor))))
        {
            // A list stands for its elements: parts for "o of part 0", slots for "slot.Value".
            string stem = parameter.ParameterType == typeof(Tensor) ? parameter.Name! : parameter.Name!.TrimEnd('s');
            bool isHere = calls.Any(call => call.Tensors.Any(tensor => parameter.ParameterType == typeof(Tensor) ? tensor.Name == stem : tensor.Name.Contains(stem, StringComparison.Ordinal)));
            if (!isHere) yield return $"{Signature(method)}: {parameter.Name}";
        }
    }

    [Theory]
    [MemberData(nameof(Calls))]
    public void Spoilt_tensors_are_rejected_before_any_work(string method, int index)
    {
        OpCall call = OpCalls.All[index];
        Assert.Equal(method, call.Method);
        using var other = new OtherDevice();
        var unused = new HashSet<string>(call.Allowed.Keys);
        Run(call, other, null, out string? valid);
        Assert.Null(valid);
        foreach ((string name, long[] shape, DType dtype) in call.Tensors)
        {
            string[] faults = ["null", "disposed", "type", "device", "rank", .. Enumerable.Range(0, shape.Length).Select(axis => $"axis {axis}")];
            foreach (string fault in faults)
            {
                // An optional tensor may be absent.
                if (fault == "null" && IsOptional(call, name)) continue;
                Exception? thrown = Run(call, other, (name, fault), out string? leak);
                Assert.True(leak is null, $"{call.Method}, {name}, {fault}: {leak}");
                if (unused.Remove($"{name} {fault}"))
                {
                    Assert.True(thrown is null, $"{call.Method}, {name}, {fault} is allowed, but: {thrown?.Message}");
                    continue;
                }
                Check(call, name, fault, thrown);
            }
        }
        Assert.Empty(unused);
    }

    private static void Check(OpCall call, string name, string fault, Exception? thrown)
    {
        string what = $"{call.Method}, {name}, {fault}";
        Assert.True(thrown is not null, $"{what}: accepted");
        Type type = fault switch { "disposed" => typeof(ObjectDisposedException), "null" => typeof(ArgumentNullException), _ => typeof(ArgumentException) };
        Assert.True(thrown.GetType() == type, $"{what}: {thrown.GetType().Name} {thrown.Message}");
        Assert.True(thrown.Message.StartsWith(call.Op + ": ", StringComparison.Ordinal), $"{what}: the message does not begin with {call.Op}: {thrown.Message}");
        // A size, a type or a device contradicts another tensor, and the message may name either; or letters, as in "G = 2 does not divide H = 5".
        bool isOwn = fault is "disposed" or "null";
        string[] names = isOwn ? [name] : [.. call.Tensors.Select(tensor => tensor.Name)];
        Assert.True(names.Any(own => Mentions(thrown.Message, own)) || Regex.Count(thrown.Message, "[A-Z] = [0-9]") == 2, $"{what}: the message names no tensor of the call: {thrown.Message}");
        string words = fault switch { "disposed" => "was disposed", "null" => "is null", "device" => "on other", "type" => "(Int|Float)[0-9]", _ => "[0-9].*[0-9]" };
        Assert.True(Regex.IsMatch(thrown.Message, words), $"{what}: the message does not say so: {thrown.Message}");
    }

    /// <summary>"tensor 1" and "k of shard 1" stand for elements of a list: the message has the name of the loop's variable.</summary>
    private static bool Mentions(string message, string name) => Regex.IsMatch(message, $@"\b{name.Split(' ')[0]}\b");

    /// <summary>Runs a call with at most one tensor spoilt; says too whether it left buffers behind.</summary>
    private static Exception? Run(OpCall call, OtherDevice other, (string Name, string Fault)? spoilt, out string? problem)
    {
        using TensorScope scope = TensorScope.Enter();
        var tensors = new Dictionary<string, Tensor>();
        foreach ((string name, long[] shape, DType dtype) in call.Tensors)
            tensors[name] = Make(shape, dtype, spoilt?.Name == name ? spoilt.Value.Fault : "", other);
        (long cpu, long elsewhere) = (Device.Cpu.LiveBuffers, other.LiveBuffers);
        problem = null;
        try
        {
            using TensorScope results = TensorScope.Enter();
            call.Run(tensors);
            return null;
        }
        catch (Exception e) when (spoilt is not null)
        {
            return e;
        }
        finally
        {
            if ((Device.Cpu.LiveBuffers, other.LiveBuffers) != (cpu, elsewhere)) problem = "buffers are left";
        }
    }

    private static Tensor Make(long[] shape, DType dtype, string fault, Device other)
    {
        long[] sizes = [.. shape];
        if (fault == "rank") sizes = [1, .. shape];
        if (fault.StartsWith("axis ", StringComparison.Ordinal)) sizes[fault[^1] - '0']++;
        if (fault == "type") dtype = dtype.IsFloat ? DType.Int32 : DType.Float32;
        if (fault == "null") return null!;
        Tensor tensor = Tensor.Zeros(sizes, dtype, fault == "device" ? other : Device.Cpu);
        if (fault == "disposed") tensor.Dispose();
        return tensor;
    }

    private static bool IsOptional(OpCall call, string name)
    {
        var context = new NullabilityInfoContext();
        MethodInfo method = typeof(ZEngine.Ops).GetMethods(BindingFlags.Public | BindingFlags.Static).First(method => Signature(method) == call.Method);
        if (method.GetParameters().FirstOrDefault(parameter => parameter.Name == name) is { } parameter) return context.Create(parameter).WriteState == NullabilityState.Nullable;
        return name is "slot.Master" or "cache.Pages" or "cache.Scales" or "rotary.Positions";
    }

    private static string Signature(MethodInfo method) => $"{method.Name}({string.Join(", ", method.GetParameters().Select(parameter => parameter.Name))})";

    /// <summary>Whether a type is a tensor, or a list or record of tensors.</summary>
    private static bool Holds(Type type, Type wanted, int depth = 0) =>
        type == wanted || depth < 3 && (type.GetGenericArguments().Any(argument => Holds(argument, wanted, depth + 1))
            || type.Assembly == wanted.Assembly && type.GetProperties().Any(property => property.PropertyType == wanted));
}
