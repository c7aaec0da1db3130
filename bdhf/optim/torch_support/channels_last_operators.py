"""Operators of torch on the CPU that are right on channels-last images, and those that are not.

`VERIFIED` are those with the same outputs, gradients of all inputs, second derivatives and tangents
in channels-last as in channels first, whatever the memory order of cotangents
(`tests/optim/torch_support/test_channels_last_operators.py` repeats the comparison). No other
operator gets channels-last images.
`needs_channels_first` are those that are wrong in torch (2.9 to 2.13).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

#: Precisions in which the operators were compared.
PRECISIONS = (torch.float32, torch.float64, torch.bfloat16)

#: Operators that copy or drop entries, or write constants.
_MOVES = {
    aten.view.default, aten._unsafe_view.default, aten.t.default, aten.transpose.int,
    aten.permute.default, aten.expand.default, aten.squeeze.dim, aten.unsqueeze.default,
    aten.select.int, aten.slice.Tensor, aten.split.Tensor, aten.split_with_sizes.default,
    aten.unbind.int, aten.clone.default, aten._to_copy.default, aten.detach.default,
    aten.cat.default, aten.stack.default, aten.constant_pad_nd.default, aten.flip.default,
    aten.reflection_pad2d.default, aten.replication_pad2d.default, aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default, aten.empty.memory_format,
}  # fmt: skip

#: Operators that act on every entry alone.
_ELEMENTWISE = {
    aten.relu.default, aten.relu_.default, aten.tanh.default, aten.sigmoid.default,
    aten.gelu.default, aten.silu.default, aten.softplus.default, aten.elu.default,
    aten.leaky_relu.default, aten.hardtanh.default, aten.mish.default, aten.hardswish.default,
    aten.exp.default, aten.abs.default, aten.neg.default, aten.sqrt.default,
    aten.pow.Tensor_Scalar, aten.clamp.default, aten.add.Tensor, aten.add_.Tensor,
    aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor,
}  # fmt: skip

#: Operators that combine entries.
_SUMS = {
    aten.sum.dim_IntList, aten.mean.default, aten.mean.dim, aten.avg_pool2d.default,
    aten._adaptive_avg_pool2d.default, aten.max_pool2d_with_indices.default, aten.mm.default,
    aten.addmm.default, aten.bmm.default, aten._softmax.default, aten._log_softmax.default,
    aten.upsample_nearest2d.default, aten.upsample_bilinear2d.default,
}  # fmt: skip

VERIFIED = frozenset(_MOVES | _ELEMENTWISE | _SUMS)


def is_verified(func: Any, args: tuple[Any, ...], results: list[Tensor]) -> bool:
    """Whether this call of an operator is on the list."""
    floats = [tensor.dtype for tensor in results if tensor.is_floating_point()]
    if any(dtype not in PRECISIONS for dtype in floats) or any(map(torch.is_complex, results)):
        return False
    if func is aten.convolution.default:  # of images, and not transposed
        return args[0].dim() == 4 and not args[6]
    if func is aten.native_batch_norm.default:
        return not args[5]  # with fixed statistics
    return func in VERIFIED


def needs_channels_first(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether torch's backward pass of an operator crashes or is wrong on channels-last images.

    Group norm crashes if not all of its gradients are requested. The norm of single images, as in
    instance norm, is wrong for a channels-last gradient. A convolution of one pixel with a stride
    writes outside of its memory.
    """
    if func in (aten.native_group_norm.default, aten.native_batch_norm.default):
        return func is aten.native_group_norm.default or bool(args[5])
    if func is aten.convolution.default:
        return _one_pixel_with_a_stride(args[1], args[3])
    return False


def _one_pixel_with_a_stride(weight: Tensor, stride: list[int]) -> bool:
    return max(weight.shape[2:]) == 1 < max(stride)


def like_channels_last(tensor: Tensor) -> bool:
    """Whether torch takes images or volumes, or what it may make of them, for channels-last.

    Torch goes by strides, including those of axes of length 1, which have no meaning.
    """
    if tensor.dim() not in (4, 5) or tensor.layout != torch.strided:
        return False
    shape, strides = tensor.shape, tensor.stride()
    usual = range(tensor.dim() - 1, -1, -1)  # from the innermost axis
    channels_last = (1, *usual[:-2], 0)
    if _descend(shape, strides, channels_last):
        return True
    return _dense(shape, strides, channels_last) and not _dense(shape, strides, usual)


def _descend(shape: torch.Size, strides: Sequence[int], axes: Sequence[int]) -> bool:
    """Whether strides grow along some axes, the channels' first; as torch detects channels-last."""
    least = 0
    for axis in axes:
        if not shape[axis] or not strides[1] or strides[axis] < least:
            return False
        if axis == 0 and least == strides[1]:  # either order
            return False
        least = strides[axis] * shape[axis]
    return True


def _dense(shape: torch.Size, strides: Sequence[int], axes: Sequence[int]) -> bool:
    """Whether the entries are contiguous along some axes."""
    step = 1
    for axis in axes:
        if shape[axis] > 1 and strides[axis] != step:
            return False
        step *= shape[axis]
    return True
