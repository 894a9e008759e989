global using Xunit;
global using Tensors = System.Collections.Generic.Dictionary<string, ZEngine.Tensor>;

// Tests count the buffers and bytes that the process holds, and set the number of threads of all ops.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
