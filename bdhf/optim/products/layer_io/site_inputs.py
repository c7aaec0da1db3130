"""What the rows of a weight multiply: the inputs a of y = W·a, as one vector per position.

A rule maps the data of an affine function, and the shape (N, before, features, after) of its y, to
vectors (N, T, groups, entries), T = before · after. A feature reads the vector of its group, in the
order of the entries of its row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bdhf.optim.products.site_samples import DenseInputs, Inputs, OneHotInputs

Shape = tuple[int, int, int, int]  # of y: (N, before, features, after)
InputsRule = Callable[[Tensor, Shape], Inputs]


def last_dimension(data: Tensor, shape: Shape) -> Inputs:
    """A linear layer: every feature reads the last dimension of the data."""
    return DenseInputs(data.reshape(shape[0], -1, 1, data.shape[-1]))


def elementwise(data: Tensor, shape: Shape) -> Inputs:
    """A scale: every feature reads its own entry of the data, which broadcast to y."""
    n, before, features, after = shape
    if data.numel() != math.prod(shape):
        data = data.expand(n, *data.shape[1:])
    return DenseInputs(data.reshape(shape).transpose(2, 3).reshape(n, before * after, features, 1))


def one_hot(entries: int, padding: int) -> InputsRule:
    """An embedding: a feature is a column, and an index reads one entry of it."""

    def rule(data: Tensor, shape: Shape) -> Inputs:
        index = data.reshape(shape[0], -1)
        return OneHotInputs(torch.where(index == padding, -1, index), entries)

    return rule


def patches(
    function: Callable[..., Tensor], weight: Sequence[int], how: Sequence[Any],
    named: Mapping[str, Any],
) -> InputsRule:  # fmt: skip
    """A convolution: a feature of a group reads a patch of the channels of that group."""
    channels_of_group, kernel = weight[1], tuple(weight[2:])

    def rule(data: Tensor, shape: Shape) -> Inputs:
        channels = data.shape[1]
        groups = channels // channels_of_group
        unfolded = _unfolded(data, kernel, how, named)
        if unfolded is None:
            arguments, options = _with_groups(how, named, channels)
            units = _units(channels, kernel, data).flatten(0, 1).unsqueeze(1)
            unfolded = function(data, units, None, *arguments, **options).flatten(2)
        return _by_group(unfolded, shape, groups)

    return rule


def transposed_patches(
    function: Callable[..., Tensor], weight: Sequence[int], groups: int, how: Sequence[Any],
    dilation: Any,
) -> InputsRule:  # fmt: skip
    """A transposed convolution: a feature reads the entries of the data that reach it."""

    def rule(data: Tensor, shape: Shape) -> Inputs:
        channels = data.shape[1]
        units = _units(channels, tuple(weight[2:]), data)
        unfolded = function(data, units, None, *how, channels, dilation).flatten(2)
        return _by_group(unfolded, shape, groups)

    return rule


def _by_group(unfolded: Tensor, shape: Shape, groups: int) -> Inputs:
    """Patches (N, channels · kernel, positions) as vectors of each group."""
    by_group = unfolded.unflatten(1, (groups, -1)).permute(0, 3, 1, 2)
    return DenseInputs(by_group.reshape(shape[0], -1, groups, by_group.shape[-1]))


def _units(channels: int, kernel: tuple[int, ...], like: Tensor) -> Tensor:
    """For every channel all unit kernels, (channels, kernel entries, *kernel)."""
    entries = math.prod(kernel)
    unit = torch.eye(entries, dtype=like.dtype, device=like.device).view(entries, *kernel)
    return unit.expand(channels, *unit.shape).contiguous()


def _with_groups(
    how: Sequence[Any], named: Mapping[str, Any], groups: int
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a convolution behind its bias, with another number of groups."""
    arguments = list(how)
    if len(arguments) > 3:  # stride, padding, dilation, groups
        arguments[3] = groups
        return arguments, dict(named)
    return arguments, {**named, "groups": groups}


def _unfolded(
    data: Tensor, kernel: tuple[int, ...], how: Sequence[Any], named: Mapping[str, Any]
) -> Tensor | None:
    """The patches of images by torch's own function; None where it does not apply."""
    options = dict(zip(("stride", "padding", "dilation"), how, strict=False)) | dict(named)
    options.pop("groups", None)
    if len(kernel) != 2 or isinstance(options.get("padding", 0), str):
        return None
    return F.unfold(data, kernel, **options)
