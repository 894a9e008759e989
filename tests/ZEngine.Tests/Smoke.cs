namespace ZEngine.Tests;

public sealed class Smoke
{
    [Xunit.Fact] public void Passes() => Xunit.Assert.Equal(2, 1 + 1);
}
