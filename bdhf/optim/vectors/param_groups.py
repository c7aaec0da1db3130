"""Blocks as param_groups of torch.optim, each with its own learning rate and damping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bdhf.optim.errors import ModelError
from bdhf.optim.vectors.blocks import Blocks


def param_groups(
    blocks: Blocks, parameters: Sequence[nn.Parameter]
) -> tuple[list[dict[str, Any]], list[int]]:
    """One group per set of blocks that share no tensor with any other block.

    A block of whole tensors is a group; blocks that cut through the same tensors are one group
    together, since a tensor can be in one group only. Returns the groups, in the order
    of their first block, and for every block the index of its group.
    """
    members: list[set[int]] = []  # slots of each group
    rows: list[list[int]] = []  # blocks of each group
    for index, block in enumerate(blocks.rows):
        touched = [g for g, slots in enumerate(members) if not slots.isdisjoint(block.slots)]
        home = touched[0] if touched else len(members)
        if not touched:
            members.append(set())
            rows.append([])
        members[home] |= set(block.slots)
        rows[home].append(index)
        for merged in reversed(touched[1:]):
            members[home] |= members.pop(merged)
            rows[home] += rows.pop(merged)
    group_of_row = {row: group for group, own in enumerate(rows) for row in own}
    groups = [
        {
            "params": [parameters[slot] for slot in sorted(slots)],
            "names": tuple(blocks.layout.slots[slot].name for slot in sorted(slots)),
        }
        for slots in members
    ]
    return groups, [group_of_row[row] for row in range(len(blocks.rows))]


def per_block(
    groups: Sequence[Mapping[str, Any]], key: str, group_of_block: Sequence[int], like: Tensor
) -> Tensor:
    """A setting of the groups as one entry per block, (rows,), of the dtype and device of `like`.

    Raises ValueError for one that a caller or a scheduler set below 0, or to infinity or NaN.
    """
    for index, group in enumerate(groups):
        if not (math.isfinite(group[key]) and group[key] >= 0):
            raise ValueError(
                f"param_groups[{index}][{key!r}] must be finite and at least 0; got {group[key]}"
            )
    values = [float(groups[group][key]) for group in group_of_block]
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def masks(group_of_block: Sequence[int], device: torch.device) -> list[Tensor]:
    """Which blocks are in each group, one mask (rows,) per group."""
    owner = torch.tensor(group_of_block, device=device)
    return [owner == group for group in range(1 + max(group_of_block))]


def refuse_other_groups(groups: Sequence[Mapping[str, Any]]) -> None:
    """Raise ModelError for the groups of another optimizer than `BlockHessianFree`."""
    for index, group in enumerate(groups):
        if missing := [repr(key) for key in ("lr", "damping") if key not in group]:
            raise ModelError(
                f"param_groups[{index}] of the state has no {' and no '.join(missing)}: it "
                "belongs to another optimizer; load the state_dict of a BlockHessianFree"
            )
