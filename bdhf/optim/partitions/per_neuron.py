"""One block a neuron: the incoming weights of one output unit, and its bias.

What an output unit is depends on the kind of module. A rule names it, for every entry of a tensor:
`(module, name, shape) -> (key, units)`, with `units` of the tensor's shape. Entries of one layer
with the same key and the same unit are one block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bdhf.nn import PeepholeLSTM
from bdhf.optim.vectors.layers import Member, layers_of
from bdhf.optim.vectors.layout import Layout

Units = tuple[str, Tensor]
UnitRule = Callable[[Any, str, torch.Size], Units]


@dataclass(frozen=True)
class PerNeuron:
    """One block per output unit: its incoming weights and its bias.

    Collobert (2004); Le Roux et al. (2007, TONGA). The unit is the output channel of a convolution,
    transposed or not, and the channel of a norm; the column of an embedding, which is a linear map
    of one-hot vectors; the hidden unit of a recurrent layer, with its rows of all gates, its biases
    and peepholes; a row of every tensor of any other module, where tensors with as many rows
    share their units. A tied tensor belongs to the first name that torch reports for it.

    >>> from bdhf.optim.vectors.layout import layout_of
    >>> mlp = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    >>> [tuple(rows.shape) for rows in PerNeuron()(layout_of(mlp))]
    [(7, 6), (3, 8)]
    """

    def __call__(self, layout: Layout) -> list[Tensor]:
        """Return a block matrix (units, n) of flat positions per layer and size of its units."""
        layers = layers_of(layout).values()
        return [matrix for members in layers for matrix in _matrices(members)]


def _matrices(members: Sequence[Member]) -> list[Tensor]:
    """The units of one layer, those of equal size in one matrix; positions ascend in a row."""
    sets: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for member in members:
        key, units = _units(member)
        sets.setdefault(key, []).append((member.slot.positions(), units.reshape(-1)))
    counts: list[Tensor] = []  # entries of every unit
    rows: list[Tensor] = []  # their positions, unit after unit
    for pairs in sets.values():
        positions, units = (torch.cat(column) for column in zip(*pairs, strict=True))
        counts.append(torch.bincount(units))
        rows.append(positions[torch.argsort(units, stable=True)])
    sizes, entries = torch.cat(counts), torch.cat(rows)
    size_of_entry = sizes.repeat_interleave(sizes)
    present = dict.fromkeys(n for n in sizes.tolist() if n)  # a unit may be frozen
    return [entries[size_of_entry == n].view(-1, n) for n in present]


def _units(member: Member) -> Units:
    shape = member.slot.shape
    if not shape:
        return member.slot.name, torch.zeros(1, dtype=torch.long)
    kinds = (rule for kind, rule in UNIT_RULES.items() if isinstance(member.module, kind))
    return next(kinds, _rows)(member.module, member.tensor, shape)


def _along(shape: torch.Size, dim: int) -> Tensor:
    """The index along one dimension of every entry."""
    sizes = [n if d == dim else 1 for d, n in enumerate(shape)]
    return torch.arange(shape[dim]).view(sizes).expand(shape)


def _rows(module: nn.Module, name: str, shape: torch.Size) -> Units:
    """A unit is an index along dimension 0; tensors of the same length share their units."""
    return f"rows of {shape[0]}", _along(shape, 0)


def _elements(module: nn.Module, name: str, shape: torch.Size) -> Units:
    """A unit is an element, the same one in every tensor: a scale with its shift."""
    return "elements", torch.arange(shape.numel())


def _columns(module: Any, name: str, shape: torch.Size) -> Units:
    """A unit is a column of (V, D): an embedding is a linear map of one-hot vectors."""
    if tuple(shape) != (module.num_embeddings, module.embedding_dim):  # a parametrization's
        return _rows(module, name, shape)
    return "columns", _along(shape, 1)


def _transposed(module: Any, name: str, shape: torch.Size) -> Units:
    """A unit is an output channel: group and position of a weight (in, out / groups, ...)."""
    per_group = module.out_channels // module.groups
    if name == "bias":
        return "channels", _along(shape, 0)
    if tuple(shape) != (module.in_channels, per_group, *module.kernel_size):  # a parametrization's
        return _rows(module, name, shape)
    group = _along(shape, 0) // (module.in_channels // module.groups)
    return "channels", group * per_group + _along(shape, 1)


def _recurrent(module: Any, name: str, shape: torch.Size) -> Units:
    """A unit is a hidden unit of one layer and direction, row u of every gate; or a projection."""
    parsed = re.fullmatch(r"(?:(?:weight|bias)_(ih|hh|hr)|peephole)(|_l\d+(?:_reverse)?)", name)
    if parsed is None:
        return _rows(module, name, shape)
    if parsed[1] == "hr":
        return f"projection{parsed[2]}", _along(shape, 0)
    return f"hidden{parsed[2]}", _along(shape, 0) % module.hidden_size


def _attention(module: Any, name: str, shape: torch.Size) -> Units:
    """A unit is a row of the input projections q, k, v, or of the output projection."""
    if name in ("bias_k", "bias_v"):  # one more key and value: inputs, not rows
        return name, torch.arange(shape.numel())
    if name.startswith("out_proj."):
        return "out_proj", _along(shape, 0)
    first = {
        "in_proj_weight": 0,
        "in_proj_bias": 0,
        "q_proj_weight": 0,
        "k_proj_weight": module.embed_dim,
        "v_proj_weight": 2 * module.embed_dim,
    }
    if name not in first:
        return _rows(module, name, shape)
    return "in_proj", first[name] + _along(shape, 0)


#: Kind of module -> what its units are; every other module has `_rows`.
UNIT_RULES: Mapping[type[nn.Module], UnitRule] = {
    nn.modules.conv._ConvTransposeNd: _transposed,
    nn.Embedding: _columns,
    nn.EmbeddingBag: _columns,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _recurrent,
    PeepholeLSTM: _recurrent,
    nn.modules.batchnorm._NormBase: _elements,
    nn.LayerNorm: _elements,
    nn.GroupNorm: _elements,
    nn.RMSNorm: _elements,
    nn.PReLU: _elements,
    nn.MultiheadAttention: _attention,
}
