global using Xunit;
global using Tensors = System.Collections.Generic.Dictionary<string, ZEngine.Tensor>;
