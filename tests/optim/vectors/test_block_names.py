"""Descriptions of blocks: names that are right, unique and readable."""

import pytest
import torch
from torch import nn

import bdhf
from bdhf.nn import PeepholeLSTM
from bdhf.optim.partitions import PerNeuron, Random
from bdhf.optim.vectors.block_names import BlockInfo, Description, describe
from bdhf.optim.vectors.blocks import Blocks
from bdhf.optim.vectors.layout import layout_of

MODEL = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


class Autoencoder(nn.Module):
    """Two modules of two layers each."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        self.decoder = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))


def described(model, partition):
    """The description of a partition of a model."""
    layout = layout_of(model)
    return describe(Blocks.of(layout, partition(layout)))


def names(model, partition):
    """Names of the blocks, in order."""
    return [block.name for block in described(model, partition)]


def test_a_block_is_named_by_what_its_tensors_are_together():
    """All, a layer, a module, a tensor; else the first and the last one."""
    halves = bdhf.Groups([["encoder.*"], ["decoder.*"]])
    crossed = bdhf.Groups([["encoder.0.weight"], ["*.bias"], ["encoder.1.weight", "decoder.*t"]])

    assert names(MODEL, bdhf.Full()) == ["all"]
    assert names(MODEL, bdhf.PerLayer()) == ["0", "2"]
    assert names(Autoencoder(), halves) == ["encoder", "decoder"]
    assert names(Autoencoder(), crossed) == [
        "encoder.0.weight",
        "encoder.0.bias … decoder.1.bias",
        "encoder.1.weight … decoder.1.weight",
    ]


def test_a_module_names_a_block_only_if_all_of_it_is_inside():
    """A block with some of a module's tensors is not named as the module."""
    partition = bdhf.Groups([["encoder.0.*"], ["encoder.1.weight", "decoder.*"], ["encoder.1.b*"]])

    assert names(Autoencoder(), partition) == [
        "encoder.0",
        "encoder.1.weight … decoder.1.bias",
        "encoder.1.bias",
    ]


def test_a_layer_of_a_stack_has_its_number():
    """Layers of one recurrent module have different names."""
    model = nn.Sequential(PeepholeLSTM(2, 3, num_layers=2), nn.Linear(3, 1))

    assert names(model, bdhf.PerLayer()) == ["0.l0", "0.l1", "1"]
    assert names(nn.GRU(2, 3, num_layers=2), bdhf.PerLayer()) == ["l0", "l1"]


def test_a_block_that_cuts_tensors_has_a_number():
    """Blocks are counted among those in the same tensors; a unit that is its layer has none."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))

    assert names(model, PerNeuron()) == ["0[0]", "0[1]", "0[2]", "1"]
    assert names(MODEL, Random(blocks=2)) == ["all[0]", "all[1]"]


def test_the_row_of_a_permuted_whole_is_no_cut():
    """A block with every entry of its tensors is whole in whatever order."""
    assert names(MODEL, lambda layout: [torch.arange(66).flip(0)[None]]) == ["all"]


@pytest.mark.parametrize("blocks", [2, 7, 20, 48])
def test_names_are_unique(blocks):
    """No two blocks have the same name, however they cross the tensors."""
    block_names = names(Autoencoder(), Random(blocks=blocks))

    assert len(set(block_names)) == len(block_names)


def test_names_that_would_be_equal_list_their_tensors():
    """Names of two blocks with the same first and last tensor list their tensors."""
    model = nn.ModuleList([nn.Linear(1, 2, bias=False) for _ in range(5)])  # two entries each

    def partition(layout):
        return [torch.tensor([[0, 2, 6], [1, 4, 7]]), torch.tensor([[3, 5, 8, 9]])]

    assert names(model, partition) == [
        "0.weight … 3.weight (0.weight, 1.weight, 3.weight)[0]",
        "0.weight … 3.weight (0.weight, 2.weight, 3.weight)[0]",
        "1.weight … 4.weight[0]",
    ]


@pytest.mark.parametrize("partition", [bdhf.Full(), bdhf.PerLayer(), PerNeuron(), Random(blocks=5)])
def test_shares_are_of_all_parameters(partition):
    """A share is P_b / P; together they are 1."""
    description = described(MODEL, partition)

    assert all(block.share == block.parameters / 66 for block in description)
    assert sum(block.parameters for block in description) == 66


def test_a_description_is_read_as_a_table():
    """Equal blocks in the same tensors are one line; the columns are aligned."""
    layout = layout_of(MODEL)
    cut = [torch.arange(42).view(7, 6), torch.arange(42, 66)[None]]

    assert str(describe(Blocks.of(layout, cut))).splitlines() == [
        "block               parameters   share",
        "0.weight units 0…4       5 × 6  45.45%",
        "0[0]                         6   9.09%",
        "0.bias[0]                    6   9.09%",
        "2                           24  36.36%",
    ]


def test_a_description_is_a_sequence_of_blocks():
    """It iterates in block order, and has a length."""
    description = described(MODEL, bdhf.PerLayer())

    assert description == Description((BlockInfo("0", 42, 42 / 66), BlockInfo("2", 24, 24 / 66)))
    assert (len(description), [block.parameters for block in description]) == (2, [42, 24])
