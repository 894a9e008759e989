using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>A name for a model's weights: SHA-256 over names, types, shapes and elements. Reads every weight once.</summary>
internal static class BaseFingerprint
{
    public static string Of(Module model)
    {
        ArgumentNullException.ThrowIfNull(model);
        using var hash = SHA256.Create();
        using (var stream = new CryptoStream(Stream.Null, hash, CryptoStreamMode.Write))
        {
            foreach (Parameter parameter in model.Parameters)
            {
                stream.Write(Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{parameter.Name} {parameter.Value.DType} [{string.Join(',', parameter.Shape.ToArray())}]\n")));
                parameter.Value.WriteTo(stream);
            }
        }
        return Convert.ToHexStringLower(hash.Hash!);
    }
}
