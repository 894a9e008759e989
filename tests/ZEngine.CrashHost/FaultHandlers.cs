namespace ZEngine.CrashHost;

/// <summary>The runtime finds null references by a signal that native libraries like to take over.</summary>
internal static class FaultHandlers
{
    private static string? s_nothing;

    /// <summary>Must end in a catch, with MPI in the process too.</summary>
    public static void ThrowNull()
    {
        try
        {
            _ = s_nothing!.Length;
        }
        catch (NullReferenceException)
        {
            s_nothing = null;
        }
    }
}
