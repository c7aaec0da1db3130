"""The functions of torch that are affine in their parameters: y = W·a + b, one rule each.

A rule takes the arguments of its function, with everything but the parameters detached. It returns
which argument is the weight, the linear map of a tangent of it (`apply`), which of its entries one
output feature reads (`rows`), and which dimensions of y are the features. Autograd computes the
adjoint of `apply`, except for small matrices, where that costs more than the product.
`AFFINE_FUNCTIONS` is the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bdhf.optim.products.layer_io import site_inputs

Apply = Callable[[Any, Tensor], Tensor]
Adjoint = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Affine:
    """One call of an affine function: y = apply(data, weight) + bias.

    The bias has one entry per feature. `positionwise`: data (N, ..., in) correspond to y
    (N, ..., out) entry by entry in the dimensions between.
    """

    weight: Any  # a Tensor, or None
    bias: Any  # a Tensor, or None
    data: Any  # of the samples; the first argument of `apply`
    apply: Apply  # linear in its second argument, of the shape of the weight
    rows: Callable[[Tensor], Tensor]  # of the shape of the weight -> (features, entries)
    first: int  # first dimension of y that counts features, from the end: -1 is the last
    dims: int = 1  # how many dimensions count features
    positionwise: bool = False
    adjoint: Adjoint | None = None  # data (n, in), cotangents (n, out) -> shape of the weight
    inputs: site_inputs.InputsRule = site_inputs.last_dimension


AffineRule = Callable[..., Affine | None]


def _rows(w: Tensor) -> Tensor:
    """Dimension 0 counts the features."""
    return w.flatten(1) if w.dim() > 1 else w[:, None]


def _columns(w: Tensor) -> Tensor:
    """The last dimension counts the features."""
    return w.t()


def _entries(w: Tensor) -> Tensor:
    """Every entry is a feature."""
    return w.reshape(-1, 1)


def _linear(input: Tensor, weight: Tensor, bias: Any = None) -> Affine:  # noqa: A002 - torch's name
    def adjoint(data: Tensor, cotangents: Tensor) -> Tensor:
        return cotangents.t() @ data

    return Affine(weight, bias, input, F.linear, _rows, -1, positionwise=True, adjoint=adjoint)


def _times(input: Tensor, other: Tensor, bias: Any = None) -> Affine:  # noqa: A002
    """The matrix (in, out) to the right of the data."""

    def adjoint(data: Tensor, cotangents: Tensor) -> Tensor:
        return data.t() @ cotangents

    return Affine(
        other, bias, input, torch.matmul, _columns, -1, positionwise=True, adjoint=adjoint
    )


def _matmul(input: Tensor, other: Tensor) -> Affine | None:  # noqa: A002
    if other.dim() != 2 or input.dim() < 2:
        return None
    return _times(input, other)


def _addmm(input: Tensor, mat1: Tensor, mat2: Tensor) -> Affine | None:  # noqa: A002
    bias = input if input.dim() == 1 else None
    return _times(mat1, mat2, bias)


def _conv(function: Callable[..., Tensor]) -> AffineRule:
    """`function` is one of torch's convolutions."""

    def rule(input: Tensor, weight: Tensor, bias: Any = None, *how: Any, **named: Any) -> Affine:  # noqa: A002
        def apply(data: Tensor, w: Tensor) -> Tensor:
            return function(data, w, None, *how, **named)

        inputs = site_inputs.patches(function, weight.shape, how, named)
        return Affine(weight, bias, input, apply, _rows, 1 - weight.dim(), inputs=inputs)

    return rule


def _conv_transpose(function: Callable[..., Tensor]) -> AffineRule:
    """`function` is one of torch's transposed convolutions; a weight is (in, out / groups, ...)."""

    def rule(
        input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,  # noqa: A002
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> Affine:  # fmt: skip
        def apply(data: Tensor, w: Tensor) -> Tensor:
            return function(data, w, None, stride, padding, output_padding, groups, dilation)

        def rows(w: Tensor) -> Tensor:
            by_group: Tensor = w.unflatten(0, (groups, -1))
            return by_group.transpose(1, 2).flatten(0, 1).flatten(1)

        inputs = site_inputs.transposed_patches(
            function, weight.shape, groups, (stride, padding, output_padding), dilation
        )
        return Affine(weight, bias, input, apply, rows, 1 - weight.dim(), inputs=inputs)

    return rule


def _embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,  # noqa: A002
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Affine | None:  # fmt: skip
    if max_norm is not None or scale_grad_by_freq or sparse:
        return None  # weights or gradients are rescaled, or gradients are sparse
    padding = -1 if padding_idx is None else padding_idx % len(weight)

    def apply(data: Tensor, w: Tensor) -> Tensor:
        rows = F.embedding(data, w)
        return rows if padding < 0 else rows.masked_fill((data == padding).unsqueeze(-1), 0.0)

    inputs = site_inputs.one_hot(len(weight), padding)
    return Affine(weight, None, input, apply, _columns, -1, inputs=inputs)


def _last_dims(function: Callable[..., Tensor]) -> AffineRule:
    """A norm over the last dimensions, with a scale of their shape."""

    def rule(
        input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, **eps: Any  # noqa: A002
    ) -> Affine:  # fmt: skip
        dims = len(normalized_shape)
        whitened = function(input, normalized_shape, **eps)
        return Affine(
            weight, bias, whitened, torch.mul, _entries, -dims, dims,
            inputs=site_inputs.elementwise,
        )  # fmt: skip

    return rule


def _rms_norm(input: Tensor, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Any:  # noqa: A002
    return _last_dims(F.rms_norm)(input, normalized_shape, weight, eps=eps)


def _group_norm(
    input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5  # noqa: A002
) -> Affine:  # fmt: skip
    return _channels(F.group_norm(input, num_groups, eps=eps), weight, bias)


def _batch_norm(
    input: Tensor, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,  # noqa: A002
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Affine | None:  # fmt: skip
    if training:
        return None  # it couples the samples
    return _channels(F.batch_norm(input, running_mean, running_var, eps=eps), weight, bias)


def _channels(whitened: Tensor, weight: Any, bias: Any) -> Affine:
    """A norm with a scale for every entry of dimension 1."""

    def apply(data: Tensor, w: Tensor) -> Tensor:
        return data * w.view(-1, *[1] * (data.dim() - 2))

    first = 1 - whitened.dim()
    return Affine(weight, bias, whitened, apply, _entries, first, inputs=site_inputs.elementwise)


def _multiply(input: Any, other: Any) -> Affine | None:  # noqa: A002
    """A scale, broadcast over the samples."""
    scale, data, extent = _broadcast(input, other)
    if extent is None:
        return None
    by_position = extent == (-1, 1)
    return Affine(
        scale, None, data, torch.mul, _entries, *extent,
        positionwise=by_position, inputs=site_inputs.elementwise,
    )  # fmt: skip


def _add(input: Any, other: Any) -> Affine | None:  # noqa: A002
    """A shift, broadcast over the samples."""
    shift, _, extent = _broadcast(input, other)
    return None if extent is None else Affine(None, shift, None, torch.mul, _entries, *extent)


def _broadcast(a: Any, b: Any) -> tuple[Any, Any, tuple[int, int] | None]:
    """The parameter, the data, and the dimensions along which the parameter varies."""
    tensors = [x for x in (a, b) if isinstance(x, Tensor)]
    if len(tensors) != 2 or a.requires_grad == b.requires_grad:
        return a, b, None
    parameter, data = (a, b) if a.requires_grad else (b, a)
    return parameter, data, _extent(parameter, data)


def _extent(small: Tensor, large: Tensor) -> tuple[int, int] | None:
    """The dimensions of `large` along which a broadcast tensor varies: the first, and how many."""
    shape = (1,) * (large.dim() - small.dim()) + tuple(small.shape)
    varying = [d for d, n in enumerate(shape) if n != 1]
    if not varying:
        return 0, 0
    first, last = varying[0], varying[-1]
    whole = shape[first : last + 1] == tuple(large.shape[first : last + 1])
    return (first - large.dim(), last + 1 - first) if whole and first > 0 else None


#: function of torch -> its rule.
AFFINE_FUNCTIONS: Mapping[Any, AffineRule] = {
    F.linear: _linear,
    torch.matmul: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.mm: _matmul,
    torch.Tensor.mm: _matmul,
    torch.addmm: _addmm,
    torch.conv1d: _conv(torch.conv1d),
    torch.conv2d: _conv(torch.conv2d),
    torch.conv3d: _conv(torch.conv3d),
    torch.conv_transpose1d: _conv_transpose(torch.conv_transpose1d),
    torch.conv_transpose2d: _conv_transpose(torch.conv_transpose2d),
    torch.conv_transpose3d: _conv_transpose(torch.conv_transpose3d),
    F.embedding: _embedding,
    F.layer_norm: _last_dims(F.layer_norm),
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.batch_norm: _batch_norm,
    torch.mul: _multiply,
    torch.Tensor.mul: _multiply,
    torch.add: _add,
    torch.Tensor.add: _add,
}
