namespace ZEngine.Bench;

internal static class Program
{
    // bench emulator [filter]
    private static int Main(string[] arguments)
    {
        if (arguments is not ["emulator", ..])
        {
            Console.WriteLine("usage: bench emulator [filter]");
            return arguments.Length == 0 ? 0 : 1;
        }
        EmulatorBench.Run(arguments.Length > 1 ? arguments[1] : null);
        return 0;
    }
}
