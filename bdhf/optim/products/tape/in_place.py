"""What an operator of torch changes in place: values, or the shape and strides of a tensor."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors of a tuple, list or mapping, in order; hand-written: this runs very often."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (tuple, list)):
        return []
    tensors: list[Tensor] = []
    for leaf in tree:
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
        elif isinstance(leaf, (tuple, list, dict)):
            tensors += tensors_in(leaf)
    return tensors


@cache
def restrides(func: Any) -> bool:
    """Whether an operator changes nothing but the shape or the strides of its first argument."""
    return torch.Tag.inplace_view in func.tags


@cache
def _writes(func: Any) -> tuple[tuple[int, str], ...]:
    """The arguments that an operator changes in place: position and name."""
    return tuple(
        (index, argument.name)
        for index, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def overwritten(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operator changes in place."""
    return [
        tensor
        for index, name in _writes(func)
        for tensor in tensors_in(args[index] if index < len(args) else kwargs.get(name))
    ]
