"""Blocks that the user names by glob patterns on parameter names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from bdhf.optim.vectors.layout import Layout


@dataclass(frozen=True)
class Groups:
    """One block per list of glob patterns: `Groups([["encoder.*"], ["decoder.*"]])`.

    The `blocks` of Zhang et al. (2017) are of this kind: whole tensors, contiguous in depth. `*`
    matches dots too. A parameter that no pattern or more than one pattern matches, and a pattern
    that matches nothing, raise ValueError when the partition meets the model.

    >>> from torch import nn
    >>> from bdhf.optim.vectors.layout import layout_of
    >>> mlp = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    >>> [tuple(rows.shape) for rows in Groups([["0.*"], ["2.*"]])(layout_of(mlp))]
    [(1, 42), (1, 24)]
    """

    blocks: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        if not self.blocks or not all(self.blocks):
            raise ValueError("Groups needs at least one block, and a pattern in every block")
        if isinstance(self.blocks, str) or any(isinstance(block, str) for block in self.blocks):
            raise ValueError(
                'Groups takes a list of blocks, each a list of patterns: [["encoder.*"], '
                f'["decoder.*"]]; got {self.blocks!r}'
            )
        object.__setattr__(self, "blocks", tuple(tuple(block) for block in self.blocks))

    def __call__(self, layout: Layout) -> list[Tensor]:
        """Return one block matrix (1, n) of flat positions a block, in the order given."""
        patterns = [(b, pattern) for b, block in enumerate(self.blocks) for pattern in block]
        for _, pattern in patterns:
            _check_pattern(pattern, layout)
        parts: list[list[Tensor]] = [[] for _ in self.blocks]
        for slot in layout.slots:
            hits = [(b, pattern) for b, pattern in patterns if fnmatchcase(slot.name, pattern)]
            if len(hits) != 1:
                raise ValueError(_misfit(slot.name, [pattern for _, pattern in hits], self.blocks))
            parts[hits[0][0]].append(slot.positions())
        return [torch.cat(part)[None] for part in parts]


def _check_pattern(pattern: str, layout: Layout) -> None:
    if any(fnmatchcase(slot.name, pattern) for slot in layout.slots):
        return
    trainable = ", ".join(slot.name for slot in layout.slots)
    message = f"pattern {pattern!r} matches no trainable parameter; known: {trainable}"
    for names, why in ((layout.frozen, "frozen"), (layout.aliases, "tied to an earlier name")):
        hits = [name for name in names if fnmatchcase(name, pattern)]
        if hits:
            message += f". It matches {hits[0]!r}, which is {why}: leave the pattern out"
    raise ValueError(message)


def _misfit(name: str, hits: list[str], blocks: Sequence[Sequence[str]]) -> str:
    if not hits:
        patterns = [list(block) for block in blocks]
        return (
            f"parameter {name!r} is in no block of {patterns}; add a pattern that matches it, "
            "or freeze it"
        )
    listed = " and ".join(repr(pattern) for pattern in hits)
    return f"parameter {name!r} is matched by {listed}; a parameter belongs to exactly one pattern"
