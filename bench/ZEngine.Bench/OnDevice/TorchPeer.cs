using System.Diagnostics;
using System.Text.Json;

namespace ZEngine.Bench;

/// <summary>PyTorch on the same device, over a script that takes the rows and says what each took.</summary>
internal static class TorchPeer
{
    /// <summary>Fills in the times of the peer: those of all its ways, and the fastest.</summary>
    /// <returns>What the peer is, or why there are no times.</returns>
    public static string Measure(string script, IReadOnlyList<DeviceRow> rows, DType type, IReadOnlyList<DeviceResult> results)
    {
        var start = new ProcessStartInfo("python3", [script]) { RedirectStandardInput = true, RedirectStandardOutput = true };
        using Process process = Process.Start(start)!;
        // The process may end before it has read all; its exit code says more than a broken pipe.
        try
        {
            process.StandardInput.Write(JsonSerializer.Serialize(rows.Select(row => new { op = row.Op, pass = row.Pass, sizes = row.Sizes, dtype = type.ToString().ToLowerInvariant() })));
            process.StandardInput.Close();
        }
        catch (IOException) { }
        string description = "unknown";
        while (process.StandardOutput.ReadLine() is { } line)
        {
            using JsonDocument said = JsonDocument.Parse(line);
            if (said.RootElement.TryGetProperty("torch", out JsonElement version))
            {
                description = version.GetString()!;
                continue;
            }
            DeviceResult result = results[said.RootElement.GetProperty("row").GetInt32()];
            (string way, double ms) = (said.RootElement.GetProperty("way").GetString()!, said.RootElement.GetProperty("ms").GetDouble());
            (result.TorchWays ??= [])[way] = ms;
            if (result.TorchMs <= ms) continue;
            (result.TorchMs, result.TorchWay, result.RatioToTorch) = (ms, way, ms / result.Ms);
        }
        process.WaitForExit();
        return process.ExitCode == 0 ? description : throw new InvalidOperationException($"{script} ended with exit code {process.ExitCode}; its own message is above.");
    }
}
