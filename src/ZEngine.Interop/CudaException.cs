namespace ZEngine.Interop;

/// <summary>A call of the CUDA driver failed.</summary>
public class CudaException : Exception
{
    /// <summary>Creates the exception for a call that returned <paramref name="result"/>.</summary>
    /// <param name="call">The text of the call.</param>
    /// <param name="result">What it returned.</param>
    /// <param name="name">CUDA's name of the result.</param>
    /// <param name="description">CUDA's words for the result, or more precise ones.</param>
    public CudaException(string call, CudaResult result, string name, string description)
        : base($"{call}: {name} ({(int)result}): {description}")
    {
        Call = call;
        Result = result;
        ResultName = name;
    }

    /// <summary>The text of the call.</summary>
    public string Call { get; }

    /// <summary>What the call returned.</summary>
    public CudaResult Result { get; }

    /// <summary>CUDA's name of the result, such as <c>CUDA_ERROR_OUT_OF_MEMORY</c>.</summary>
    public string ResultName { get; }
}

/// <summary>A native library this project can use is not on this machine, or lacks a function.</summary>
public sealed class NativeLibraryException : Exception
{
    /// <summary>Creates the exception.</summary>
    public NativeLibraryException(string message) : base(message) { }

    /// <summary>Creates the exception with its cause.</summary>
    public NativeLibraryException(string message, Exception inner) : base(message, inner) { }
}

/// <summary>NVRTC refused a program, or a call of it failed.</summary>
public sealed class NvrtcException : Exception
{
    /// <summary>Creates the exception.</summary>
    /// <param name="message">What failed; for a compile error NVRTC's log, unchanged.</param>
    /// <param name="log">NVRTC's log, empty when there is none.</param>
    public NvrtcException(string message, string log = "") : base(message) => Log = log;

    /// <summary>NVRTC's log, unchanged: <c>file(line): error: ...</c>.</summary>
    public string Log { get; }
}
