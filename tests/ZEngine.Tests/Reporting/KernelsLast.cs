using Xunit.Sdk;
using Xunit.v3;
using ZEngine.Tests.Reporting;
using ZEngine.Tests.Structure;

[assembly: TestCollectionOrderer(typeof(KernelsLast))]

namespace ZEngine.Tests.Reporting;

/// <summary>The test of all compiled kernels comes last, and the compiling begins with the first test.</summary>
public sealed class KernelsLast : ITestCollectionOrderer
{
    public IReadOnlyCollection<TTestCollection> OrderTestCollections<TTestCollection>(IReadOnlyCollection<TTestCollection> testCollections) where TTestCollection : ITestCollection
    {
        static bool IsOfKernels(TTestCollection collection) => collection.TestCollectionDisplayName.Contains(typeof(Kernels).FullName!, StringComparison.Ordinal);
        if (testCollections.Any(IsOfKernels)) Kernels.CompileAhead();
        return [.. DefaultTestCollectionOrderer.Instance.OrderTestCollections(testCollections).OrderBy(IsOfKernels)];
    }
}
