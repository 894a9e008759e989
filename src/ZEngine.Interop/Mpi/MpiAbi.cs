using System.Runtime.InteropServices;

namespace ZEngine.Interop;

/// <summary>What differs between implementations of MPI: the values of handles and constants. Signatures are the same when every handle is a pointer's width.</summary>
/// <remarks>
/// Open MPI's handles are addresses of its exported data; those of MPICH and its kin are numbers of 32 bits, which travel in the lower half of the
/// register; those of the standard ABI of MPI 5 are small numbers. Of the third no library was at hand to run.
/// </remarks>
public sealed record MpiAbi(string Name, nint CommWorld, nint Byte, nint ErrorsReturn, nint RequestNull, nint StatusesIgnore, int ThreadSerialized, nint InfoNull, int CommTypeShared)
{
    /// <summary>The table that fits a loaded library.</summary>
    /// <param name="library">Its handle.</param>
    /// <param name="path">Where it came from.</param>
    public static MpiAbi Of(nint library, string path)
    {
        if (NativeLibrary.TryGetExport(library, "ompi_mpi_comm_world", out nint world))
        {
            nint At(string name) => NativeLibrary.GetExport(library, name);
            return new MpiAbi("Open MPI", world, At("ompi_mpi_byte"), At("ompi_mpi_errors_return"), At("ompi_request_null"), 0, 2, At("ompi_mpi_info_null"), 0);
        }
        return System.IO.Path.GetFileName(path).Contains("mpi_abi", StringComparison.Ordinal)
            ? new MpiAbi("MPI 5 ABI", 0x101, 0x247, 0x143, 0x180, 0, 2048, 0x130, 221)
            : new MpiAbi("MPICH", 0x44000000, 0x4c00010d, 0x54000001, 0x2c000000, 1, 2, 0x1c000000, 1);
    }
}
