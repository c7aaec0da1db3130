"""Where a forward pass uses its parameters: the sites y = W·a + b, with their data cached.

Through sites J v takes no sweep through the model. With ∂y = W(v)·a + b(v),

    J v = Σ over sites of (∂z/∂y) ∂y        Jᵀ w = Σ over sites of Wᵀ((∂z/∂y)ᵀ w)

`affine_calls.py` intercepts the functions of `AFFINE_FUNCTIONS` during one forward pass. Calls that
use the same parameters in the same way, such as the steps of a recurrent layer, are one site with
more positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from bdhf.optim.products.layer_io.affine_calls import AffineCall, Record
from bdhf.optim.products.layer_io.parameter_uses import ParameterView, Use
from bdhf.optim.products.layer_io.site_inputs import Shape
from bdhf.optim.products.site_samples import Inputs


class Uncovered(Exception):  # noqa: N818 - a result with a reason, not an error
    """`layer_io` does not apply, with the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Site:
    """All calls that use one weight, or bias, or both, in the same way."""

    edges: tuple[GradientEdge, ...]  # where the graph of the outputs has the y of every call
    before: tuple[int, ...]  # positions of every call
    shape: Shape  # of y
    uses: tuple[Use, ...]
    flops: int  # of all calls

    @property
    def slots(self) -> tuple[int, ...]:
        """Indices of its parameters."""
        return tuple(use.view.slot for use in self.uses)

    @property
    def structure(self) -> Hashable:
        """What the reduction depends on."""
        return self.shape, tuple(use.view for use in self.uses)

    def inputs(self) -> Inputs | None:
        """The inputs of its weight; None for a site that is a bias."""
        return next((use.inputs() for use in self.uses if use.inputs is not None), None)

    def gather(self, cotangents: Sequence[Tensor | None]) -> Tensor | None:
        """Cotangents of all calls, each (k, *shape of y), as one (k, N, before, features, after).

        None is a zero; None for all calls gives None.
        """
        some = next((c for c in cotangents if c is not None), None)
        if some is None:
            return None
        n, _, features, after = self.shape
        shapes = [(len(some), n, before, features, after) for before in self.before]
        parts = [
            some.new_zeros(shape) if c is None else c.reshape(shape)
            for c, shape in zip(cotangents, shapes, strict=True)
        ]
        return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, dim=2)


def record_sites(
    run: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    names: Sequence[str],
    dtype: torch.dtype | None = None,
    composites: bool = False,
) -> tuple[Tensor, list[Site]]:
    """Run a forward pass and find its sites, in the order in which they are first used.

    Dimension 0 of the outputs counts the samples. `names` are those of the parameters; `dtype` is
    the precision of the cached data and of the products with them (None: unchanged);
    `composites` looks into attention and recurrent layers. Raises Uncovered for outputs without a
    dimension of samples, and for a call whose dimension 0 cannot count them.
    """
    with Record(parameters, composites) as record:
        outputs = run()
    if outputs.dim() == 0:
        raise Uncovered("the outputs have no dimension that counts the samples")
    alike: dict[Hashable, list[tuple[AffineCall, Shape]]] = {}
    for index, call in enumerate(record.calls):
        way = (call.affine.apply, call.affine.first) if call.affine.positionwise else index
        shape = _shape(call, len(outputs))
        if shape is None:
            raise Uncovered(
                f"{names[call.slot]!r} makes a tensor of shape {tuple(call.shape)}, whose "
                f"dimension 0 does not count the {len(outputs)} samples"
            )
        key = (way, call.weight, call.bias, shape[0], shape[2:])
        alike.setdefault(key, []).append((call, shape))
    return outputs, [_site(pairs, dtype) for pairs in alike.values()]


def _shape(call: AffineCall, samples: int) -> Shape | None:
    """Of y: (N, before, features, after); None where its dimension 0 does not count samples."""
    first = len(call.shape) + call.affine.first
    if first < 1 or not samples or call.shape[0] % samples:
        return None
    last = first + call.affine.dims
    features, after = math.prod(call.shape[first:last]), math.prod(call.shape[last:])
    return samples, math.prod(call.shape[:first]) // samples, features, after


def _site(pairs: Sequence[tuple[AffineCall, Shape]], dtype: torch.dtype | None) -> Site:
    """One site of calls with equal keys."""
    calls, shapes = [call for call, _ in pairs], [shape for _, shape in pairs]
    before = tuple(shape[1] for shape in shapes)
    shape = (shapes[0][0], sum(before), *shapes[0][2:])
    uses = []
    if calls[0].weight is not None:
        uses.append(_weight(calls, shape, dtype))
    if calls[0].bias is not None:
        uses.append(_bias(calls[0].bias, calls[0].affine.bias, shape))
    edges = tuple(call.edge for call in calls)
    return Site(edges, before, shape, tuple(uses), sum(call.flops for call in calls))


def _weight(calls: Sequence[AffineCall], shape: Shape, dtype: torch.dtype | None) -> Use:
    affine, view = calls[0].affine, calls[0].weight
    assert view is not None
    data = affine.data
    if len(calls) > 1:
        parts = [call.affine.data for call in calls]
        data = torch.cat([d.reshape(shape[0], -1, d.shape[-1]) for d in parts], dim=1)
    precision = affine.weight.dtype if dtype is None else dtype
    if data.is_floating_point():
        data = data.to(precision)

    def apply(v: Tensor) -> Tensor:
        return affine.apply(data, v).reshape(shape)

    def adjoint(w: Tensor) -> Tensor:
        assert affine.adjoint is not None
        return affine.adjoint(data.reshape(-1, data.shape[-1]), w.reshape(-1, shape[2]))

    def inputs() -> Inputs:
        return affine.inputs(data, shape)

    return Use(view, apply, affine.rows, precision, adjoint if affine.adjoint else None, inputs)


def _bias(view: ParameterView, bias: Tensor, shape: Shape) -> Use:
    entries = bias.shape

    def apply(v: Tensor) -> Tensor:
        return v.reshape(1, 1, -1, 1).expand(shape)

    def adjoint(w: Tensor) -> Tensor:
        return w.sum((0, 1, 3)).reshape(entries)

    return Use(view, apply, lambda b: b.reshape(-1, 1), bias.dtype, adjoint)
