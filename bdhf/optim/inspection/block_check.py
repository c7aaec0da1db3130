"""How far products are from symmetric, and from a finite difference: in full and in blocks.

A block's product may be computed in another way than that of the full matrix (a bottleneck, a
component of layer_io), so checking the full matrix is not enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature
from bdhf.optim.diagnosis.surrogates import held_fixed
from bdhf.optim.forward.objective import Objective
from bdhf.optim.inspection.differences import Differences
from bdhf.optim.partitions import Full
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products import BlockProduct
from bdhf.optim.vectors.blocks import Blocks

#: Where the product is 0, a finite difference counts relative to this share of the gradient.
FLOOR = 1e-3

#: Share of the tolerance below which a one-sided difference is accurate enough.
CLOSE = 0.1

#: The most blocks to examine: the first, the last, one of every kind, and random others.
BLOCKS = 16


@dataclass(frozen=True)
class Errors:
    """Relative errors of one matrix or block; NaN: not examined."""

    asymmetry: float  # |uᵀGv - vᵀGu| ÷ ‖Gu‖ + ‖Gv‖
    finite_difference: float  # |vᵀGv - its finite difference| ÷ ‖Gv‖ + |vᵀGv|

    @property
    def worst(self) -> float:
        """The larger examined one; 0 where none was."""
        return max((e for e in (self.asymmetry, self.finite_difference) if e == e), default=0.0)


@dataclass(frozen=True)
class Probe:
    """Examines one linearisation with two random vectors."""

    objective: Objective
    product: BlockProduct
    curvature: Curvature
    tolerance: float
    watch: Callable[[], None] | None = None

    @cached_property
    def full(self) -> Blocks:
        """One block of all parameters."""
        return cut(self.product.blocks.layout, Full())

    @cached_property
    def blocks(self) -> Blocks | None:
        """The blocks of the products; None where there is only the full matrix."""
        blend = self.product.blocks.blend
        blocks = self.product.blocks if blend is None else blend.inner
        return blocks if len(blocks.rows) > 1 or blocks.permutation is not None else None

    @cached_property
    def vectors(self) -> tuple[Tensor, Tensor]:
        """The probes u and v, (P,) each in the order of the parameters."""
        like, draws = self.product.gradient, torch.Generator().manual_seed(0)
        u, v = (torch.randn(len(like), generator=draws).to(like) for _ in range(2))
        return u * self._moves, v * self._moves

    def of_full(self, mask: Tensor | None = None) -> Errors:
        """Errors of the full matrix; `mask` (P,) selects the parameters to move."""
        u, v = self.vectors if mask is None else (x * mask.to(x) for x in self.vectors)
        gu, gv = (self._product(self.full, x, [0]) for x in (u, v))
        floor = 0.0 if gv.any() else FLOOR * float(self.product.gradient.norm())
        return self._errors(u, v, gu, gv, floor)

    def of_blocks(self) -> dict[int, Errors]:
        """Errors of the examined blocks, by their index."""
        blocks = self.blocks
        if blocks is None:
            return {}
        chosen = chosen_blocks(blocks)
        u, v = self.vectors
        gu, gv = (blocks.scatter(self._product(blocks, blocks.gather(x), chosen)) for x in (u, v))
        floor = FLOOR * float(gv.norm())  # a block far below the others may be rounding only
        errors = {}
        for index, positions in zip(chosen, _positions(blocks, chosen), strict=True):
            mask = torch.zeros(blocks.layout.size, dtype=torch.bool)
            mask[positions] = True
            u_b, v_b, gu_b, gv_b = (torch.where(mask.to(x.device), x, 0) for x in (u, v, gu, gv))
            errors[index] = self._errors(u_b, v_b, gu_b, gv_b, floor)
        return errors

    def _product(self, blocks: Blocks, v: Tensor, active: list[int]) -> Tensor:
        if self.watch is not None:
            self.watch()
        return self.product.cut_to(blocks, v, active)

    def _errors(self, u: Tensor, v: Tensor, gu: Tensor, gv: Tensor, floor: float) -> Errors:
        """Errors relative to the products, or to `floor` if that is larger."""
        if not (gu.isfinite().all() and gv.isfinite().all()):
            return Errors(math.nan, math.nan)  # the update reports it
        actual = float(v @ gv)
        size, scale = float(gv.norm() + gu.norm()) + floor, float(gv.norm()) + abs(actual) + floor
        asymmetry = float((u @ gv - v @ gu).abs()) / size if size else 0.0
        if self._differences is None or not scale or not v.any():
            return Errors(asymmetry, math.nan)
        error = abs(self._differences.forward(v) - actual) / scale
        if error > CLOSE * self.tolerance:  # take another pass, which detects kinks too
            error = abs(self._differences.central(v) - actual) / scale
        return Errors(asymmetry, error)

    @cached_property
    def _differences(self) -> Differences | None:
        return Differences.of(self.objective, self.product)

    @cached_property
    def _moves(self) -> Tensor:
        """1 for a parameter to move, 0 for those whose gradient is 0 by convention, (P,)."""
        moves = torch.ones_like(self.product.gradient)
        indices = {id(p): i for i, p in enumerate(self.objective.parameters)}
        parts = self.product.blocks.layout.split(moves)
        for parameter, row in held_fixed(self.objective.model):
            if id(parameter) in indices:
                parts[indices[id(parameter)]][row] = 0.0
        return moves


def chosen_blocks(blocks: Blocks) -> list[int]:
    """Indices of the blocks to examine, ascending."""
    count = len(blocks.rows)
    if count <= BLOCKS:
        return list(range(count))
    slots = blocks.layout.slots
    first_of_kind: dict[frozenset[tuple[str, str]], int] = {}
    for index, block in enumerate(blocks.rows):
        kind = frozenset(
            (type(slots[i].owners[-1][1]).__name__, slots[i].name.rpartition(".")[2])
            for i in block.slots
        )
        first_of_kind.setdefault(kind, index)
    by_chance = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    order = dict.fromkeys([0, count - 1, *first_of_kind.values(), *by_chance[:BLOCKS]])
    return sorted(list(order)[:BLOCKS])


def _positions(blocks: Blocks, chosen: list[int]) -> list[Tensor]:
    every = blocks.positions()
    return [every[index] for index in chosen]
