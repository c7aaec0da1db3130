"""An optimizer of torch whose param_groups are the blocks of a partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bdhf.optim.vectors.blocks import Blocks
from bdhf.optim.vectors.param_groups import masks, param_groups, per_block, refuse_other_groups


class BlockOptimizer(torch.optim.Optimizer):
    """An optimizer whose param_groups are the blocks of a partition.

    A subclass sets its attributes before it calls `__init__`, so that copies and pickles have them.
    """

    def __init__(
        self, blocks: Blocks, parameters: Sequence[nn.Parameter], defaults: Mapping[str, Any]
    ) -> None:
        self._complete = False
        groups, self._group_of_block = param_groups(blocks, parameters)
        self._own = (*vars(self), "_own")  # torch copies the attributes of its class only
        super().__init__(groups, dict(defaults))
        self._complete = True

    def __getstate__(self) -> dict[str, Any]:
        """Keep the parts too when copied or pickled; torch keeps state and groups only.

        The copy trains a copy of the model: copy them together, `deepcopy((model, optimizer))`.
        """
        return {**super().__getstate__(), **{name: vars(self)[name] for name in self._own}}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse: the groups are the partition's blocks."""
        if self._complete:
            raise TypeError(
                f"the param_groups of {type(self).__name__} are the blocks of its partition; build "
                "a new optimizer for a model with more trainable parameters"
            )
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict()`. Raises ModelError for that of another optimizer."""
        refuse_other_groups(state_dict["param_groups"])
        super().load_state_dict(state_dict)

    def _per_block(self, key: str, like: Tensor) -> Tensor:
        """A setting of the groups for every block, (rows,), of the dtype and device of `like`."""
        return per_block(self.param_groups, key, self._group_of_block, like)

    def _groups_apart(self, device: torch.device) -> list[Tensor]:
        """Masks of the blocks of each group, (rows,); none for a single group."""
        return masks(self._group_of_block, device) if len(self.param_groups) > 1 else []
