"""Partitions: what they cut, and what they refuse."""

import pytest
import torch
from torch import nn

import bdhf
from bdhf.optim.groups import param_groups
from bdhf.optim.layout import Blocks, layout_of
from tests.cases import build

MODEL = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def shapes(partition):
    """Shapes of the block matrices on the two-layer model: 42 and 24 parameters."""
    return [tuple(matrix.shape) for matrix in partition(layout_of(MODEL))]


def test_full_is_one_row():
    """Full HF is one matrix of one row."""
    assert shapes(bdhf.Full()) == [(1, 66)]


def test_per_layer_keeps_weight_and_bias_together():
    """Per-layer is one matrix of one row a layer."""
    assert shapes(bdhf.PerLayer()) == [(1, 42), (1, 24)]


def test_per_layer_knows_stacked_and_composed_layers():
    """A stacked LSTM is one block a layer, attention is one block with its output projection."""
    lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    attention = nn.Sequential(nn.MultiheadAttention(4, 2), nn.Linear(4, 1))

    def sizes(model):
        return [rows.numel() for rows in bdhf.PerLayer()(layout_of(model))]

    first = 2 * (4 * 4 * (3 + 4) + 2 * 4 * 4)
    second = 2 * (4 * 4 * (8 + 4) + 2 * 4 * 4)
    assert sizes(lstm) == [first, second]
    assert sizes(attention) == [4 * 4 * 4 + 4 * 4, 5]


def test_groups_follow_the_order_of_the_user():
    """The first block is the first list of patterns, whatever its place in the model."""
    blocks = bdhf.Groups([["2.*"], ["0.weight", "0.bias"]])(layout_of(MODEL))

    assert [block.min().item() for block in blocks] == [42, 0]


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([["0.*"]], r"parameter '2.weight' is in no block"),
        ([["0.*"], ["*.weight"], ["2.bias"]], r"'0.weight' is matched by '0.\*' and '\*.weight'"),
        ([["*"], ["encoder.*"]], r"'encoder.\*' matches no trainable parameter; known: 0.weight"),
    ],
)
def test_groups_that_miss_or_repeat_a_parameter_name_it(blocks, message):
    """A parameter in no block or in two, and an idle pattern, are errors that name them."""
    with pytest.raises(ValueError, match=message):
        bdhf.Groups(blocks)(layout_of(MODEL))


@pytest.mark.parametrize("blocks", [[], [[]], ["0.*", "2.*"], "0.*"])
def test_groups_that_are_no_lists_of_patterns_are_refused(blocks):
    """The nesting is checked before any model is met."""
    with pytest.raises(ValueError, match="Groups"):
        bdhf.Groups(blocks)


def test_a_pattern_for_frozen_or_tied_parameters_says_so():
    """An idle pattern whose parameter exists says why it does not count."""
    frozen = build("frozen").model
    with pytest.raises(ValueError, match=r"'2.weight', which is frozen"):
        bdhf.Groups([["0.weight", "2.bias", "4.*"], ["2.weight"]])(layout_of(frozen))
    with pytest.raises(ValueError, match=r"'mirror.weight', which is tied to an earlier name"):
        bdhf.Groups([["encoder.*", "decoder.*"], ["mirror.*"]])(layout_of(build("tied").model))


@pytest.mark.parametrize(
    ("matrices", "message"),
    [
        ([torch.arange(60)[None]], "'2.weight': entry 18 is in no block"),
        ([torch.arange(66)[None], torch.tensor([[0]])], "'0.weight': entry 0 is in 2 blocks"),
        ([torch.arange(67)[None]], "names position 66; the model has positions 0 to 65"),
        ([torch.arange(66)], "non-empty LongTensors"),
        ([], "returned no block"),
    ],
)
def test_a_partition_that_does_not_cover_each_entry_once_is_refused(matrices, message):
    """The coverage check names the first entry that is wrong."""
    with pytest.raises(ValueError, match=message):
        Blocks.of(layout_of(MODEL), matrices)


def test_order_round_trip():
    """`scatter` undoes `gather`, for a partition in any order."""
    order = torch.randperm(66, generator=torch.Generator().manual_seed(0))
    blocks = Blocks.of(layout_of(MODEL), [order[:60].view(6, 10), order[60:].view(1, 6)])
    flat = torch.randn(66)

    assert torch.equal(blocks.scatter(blocks.gather(flat)), flat)
    assert torch.equal(blocks.gather(flat), flat[order])


def test_row_arithmetic_is_arithmetic_within_each_row():
    """dot, add_scaled_, scale_add_ and zero_ act on every block with its own coefficient."""
    blocks = Blocks.of(layout_of(MODEL), [torch.arange(60).view(6, 10), torch.arange(60, 66)[None]])
    x, y, a = torch.randn(66), torch.randn(66), torch.randn(7)
    spread = torch.cat([a[:6].repeat_interleave(10), a[6:].repeat_interleave(6)])
    owner = torch.cat([torch.arange(6).repeat_interleave(10), torch.full((6,), 6)])

    torch.testing.assert_close(blocks.dot(x, y), torch.zeros(7).index_add(0, owner, x * y))
    torch.testing.assert_close(blocks.add_scaled_(y.clone(), a, x), y + spread * x)
    torch.testing.assert_close(blocks.scale_add_(y.clone(), a, x), x + spread * y)
    blocks.zero_(a > 0, x)
    assert torch.equal(x != 0, spread <= 0)


def test_blocks_of_whole_tensors_are_param_groups_of_their_own():
    """Per-layer blocks have one group each, named by their parameters."""
    layout = layout_of(MODEL)
    groups, owner = param_groups(
        Blocks.of(layout, bdhf.PerLayer()(layout)), list(MODEL.parameters())
    )

    assert [g["names"] for g in groups] == [("0.weight", "0.bias"), ("2.weight", "2.bias")]
    assert owner == [0, 1]


def test_blocks_that_cut_through_the_same_tensors_share_a_group():
    """Rows of one layer share its group; a block that bridges layers joins their groups."""
    layout = layout_of(MODEL)
    rows = Blocks.of(layout, [torch.arange(42).view(6, 7), torch.arange(42, 66).view(4, 6)])
    bridged = Blocks.of(layout, [torch.tensor([[0, 65]]), torch.arange(1, 65)[None]])

    # five rows cut the first weight, the sixth is its bias whole, four cut the second layer
    assert param_groups(rows, list(MODEL.parameters()))[1] == [0] * 5 + [1] + [2] * 4
    assert param_groups(bridged, list(MODEL.parameters()))[1] == [0, 0]


def test_a_model_without_trainable_parameters_is_an_error():
    """Nothing to train is said in words."""
    with pytest.raises(ValueError, match="no trainable parameter"):
        layout_of(nn.Tanh())
