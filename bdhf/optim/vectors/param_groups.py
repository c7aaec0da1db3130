"""Blocks -> param_groups of torch.optim: what may have a learning rate and a damping of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from bdhf.optim.vectors.blocks import Blocks


def param_groups(
    blocks: Blocks, parameters: Sequence[nn.Parameter]
) -> tuple[list[dict[str, Any]], list[int]]:
    """One group per set of blocks that share no tensor with any other block.

    A block of whole tensors is a group of its own; blocks that cut through the same tensors are
    one group together, since a tensor can be in one group only. Returns the groups, in the order
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
