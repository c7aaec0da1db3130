"""Channels first for the CPU kernels of torch that are wrong on channels-last images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from bdhf.optim.torch_support.channels_last_operators import like_channels_last

_CONVOLUTIONS = (torch.conv2d, torch.conv3d)
_INSTANCE_NORMS = (F.instance_norm, torch.instance_norm)
_NORMS = (F.group_norm, torch.group_norm, *_INSTANCE_NORMS)


class ChannelsFirst(TorchFunctionMode):
    """Passes images channels first to those functions whose kernels are wrong otherwise.

    They are those of `needs_channels_first`, called as module or as function.
    """

    def __init__(self) -> None:
        super().__init__()
        self.instance_norms = 0  # calls so far

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _NORMS or (func in _CONVOLUTIONS and _of_one_pixel(*args, **kwargs)):
            args, kwargs = channels_first(args), channels_first(kwargs)
        result = func(*args, **kwargs)
        if func in _INSTANCE_NORMS:
            self.instance_norms += 1
            if result.requires_grad:
                result.register_hook(channels_first)  # the order of the gradient matters too
        return result


def _of_one_pixel(
    input: Tensor,  # noqa: A002 - torch's word for it, and it may be given by name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    *rest: Any,
    **others: Any,
) -> bool:
    return max(weight.shape[2:]) == 1 < (stride if isinstance(stride, int) else max(stride))


def channels_first(tree: Any) -> Any:
    """The same nest, with images and volumes on the CPU in the usual memory order."""
    if not any(isinstance(leaf, Tensor) and _turned(leaf) for leaf in tree_leaves(tree)):
        return tree
    return tree_map(lambda leaf: _first(leaf) if isinstance(leaf, Tensor) else leaf, tree)


def _turned(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and like_channels_last(tensor)


def _first(tensor: Tensor) -> Tensor:
    """By both, since each accepts some strides of axes of length 1 as the usual order."""
    if not _turned(tensor):
        return tensor
    return tensor.contiguous().to(memory_format=torch.contiguous_format)
