using ZEngine.Distributed;
using ZEngine.Models;

namespace ZEngine.Tests.Distributed;

/// <summary>The group table.</summary>
public sealed class LayoutTests
{
    [Theory]
    [InlineData(4, 1, 1, 1)]
    [InlineData(2, 2, 1, 2)]
    [InlineData(4, 1, 2, 2)]
    [InlineData(6, 2, 3, 2)]
    public void Every_rank_is_in_one_group_of_every_class(int data, int context, int expert, int tensor)
    {
        var layout = new Layout(data, context, expert, tensor);
        layout.RequireFit(data * context * tensor);
        var sizes = new Dictionary<GradientClass, int>
        {
            [GradientClass.Dense] = data * context, [GradientClass.Expert] = data * context / expert,
            [GradientClass.TensorReplicated] = data * context * tensor, [GradientClass.SequenceNorm] = data * context * tensor,
        };
        Assert.Equal(Enum.GetValues<GradientClass>().Order(), Layout.ReduceAxes.Keys.Order());
        foreach (GradientClass gradient in Enum.GetValues<GradientClass>())
        {
            IReadOnlyList<IReadOnlyList<int>> groups = layout.GroupsOf(gradient);
            Assert.Equal(Enumerable.Range(0, layout.Size), groups.SelectMany(group => group).Order());
            Assert.All(groups, group => Assert.Equal(sizes[gradient], group.Count));
        }
    }

    [Fact]
    public void Tensor_ranks_are_neighbours_and_experts_lie_within_data()
    {
        var layout = new Layout(Data: 4, Expert: 2, Tensor: 2);
        Assert.Equal([[0, 1], [2, 3], [4, 5], [6, 7]], layout.GroupsAlong(LayoutAxis.Tensor));
        Assert.Equal([[0, 2], [1, 3], [4, 6], [5, 7]], layout.GroupsAlong(LayoutAxis.Expert));
        Assert.Equal([[0, 4], [1, 5], [2, 6], [3, 7]], layout.GroupsOf(GradientClass.Expert));
        Assert.Equal([[0, 2, 4, 6], [1, 3, 5, 7]], layout.GroupsOf(GradientClass.Dense));
    }

    [Fact]
    public void Groups_of_a_world_are_those_of_the_table()
    {
        var layout = new Layout(Data: 2, Tensor: 2);
        InProcessWorld.Run(4, world =>
        {
            int[] members = layout.Join(world, LayoutAxis.Tensor).Gather(world.Rank);
            Assert.Equal(layout.GroupsAlong(LayoutAxis.Tensor).Single(group => group.Contains(world.Rank)), members);
        }, Worlds.Timeout);
    }

    [Fact]
    public void Classes_with_the_same_groups_share_a_communicator_and_every_parameter_has_one()
    {
        InProcessWorld.Run(4, world =>
        {
            IReadOnlyDictionary<GradientClass, Communicator> plain = new Layout(4).JoinGradientGroups(world);
            Assert.All(plain.Values, group => Assert.Same(world, group));
            var layout = new Layout(Data: 2, Expert: 2, Tensor: 2);
            IReadOnlyDictionary<GradientClass, Communicator> groups = layout.JoinGradientGroups(world);
            foreach (GradientClass gradient in Enum.GetValues<GradientClass>())
                Assert.Equal(layout.GroupsOf(gradient).Single(group => group.Contains(world.Rank)), groups[gradient].Gather(world.Rank));
        }, Worlds.Timeout);
        Assert.Equal("0, 2; 1, 3", new Layout(Data: 2, Tensor: 2).DescribeGroups(GradientClass.Dense));
        using LanguageModel mixture = new Mixtral(new MixtralConfig { VocabularySize = 31, HiddenSize = 8, IntermediateSize = 12, Layers = 1, Heads = 2, KeyValueHeads = 1, HeadDimension = 4, Experts = 2, ExpertsPerToken = 1 });
        Assert.Equal(mixture.Parameters.Where(parameter => parameter.Name.Contains(".experts.", StringComparison.Ordinal)), mixture.Parameters.Where(parameter => parameter.GradientClass == GradientClass.Expert));
        Assert.Equal(2, mixture.Parameters.Count(parameter => parameter.GradientClass == GradientClass.Expert));
    }

    [Theory]
    [InlineData(3, 1, 2, 1, 3, "Expert to divide Data")]
    [InlineData(2, 1, 1, 2, 3, "are 4, the world has 3")]
    public void Sizes_that_do_not_fit_are_refused(int data, int context, int expert, int tensor, int world, string message) =>
        Assert.Contains(message, Assert.Throws<ArgumentException>(() => new Layout(data, context, expert, tensor).RequireFit(world)).Message, StringComparison.Ordinal);
}
