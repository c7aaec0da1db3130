"""A parameter where it is used: which part of it, and the linear map from it to y."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge


@dataclass(frozen=True)
class Place:
    """A parameter, or a strided view of one that is contiguous."""

    slot: int  # index of the parameter
    whole: tuple[int, ...]  # its shape
    strides: tuple[tuple[int, ...], tuple[int, ...], int] | None  # shape, strides, offset

    def of(self, tensor: Tensor) -> Tensor:
        """The same view of a tensor of the parameter's shape."""
        if self.strides is None:
            return tensor
        shape, strides, offset = self.strides
        tensor = tensor.contiguous()
        return tensor.as_strided(shape, strides, tensor.storage_offset() + offset)

    def whole_of(self, part: Tensor) -> Tensor:
        """A tensor of the parameter's shape that has `part` in the view, zero elsewhere."""
        if self.strides is None:
            return part
        whole = part.new_zeros(self.whole)
        whole.as_strided(*self.strides).copy_(part)
        return whole


class Use:
    """One parameter of a site, as a linear map between its tangents and those of y.

    Tensors of y have the shape (N, before, features, after).
    """

    def __init__(
        self,
        place: Place,
        apply: Callable[[Tensor], Tensor],
        rows: Callable[[Tensor], Tensor],
        dtype: torch.dtype,
    ) -> None:
        self.place, self.rows = place, rows
        self._apply, self._dtype = apply, dtype
        self._graph: tuple[GradientEdge, Tensor] | None = None

    @torch.no_grad()
    def push(self, tangent: Tensor) -> Tensor:
        """Of a tangent of the parameter; broadcasts to the shape of y."""
        return self._apply(self.place.of(tangent).to(self._dtype)).to(tangent.dtype)

    def pull(self, cotangent: Tensor) -> Tensor:
        """The adjoint of `push`: of a cotangent of y, of the shape of the parameter."""
        if self._graph is None:
            self._graph = self._trace(cotangent)
        edge, leaf = self._graph
        (part,) = torch.autograd.grad(edge, leaf, cotangent.to(self._dtype), retain_graph=True)
        return self.place.whole_of(part.to(cotangent.dtype))

    @torch.enable_grad()
    def _trace(self, like: Tensor) -> tuple[GradientEdge, Tensor]:
        """The graph of `push` at 0, which is that of any tangent, since the map is linear.

        Of a tensor of its own: the graph may keep it, and a vector of CG would change. A dense one,
        since the layout of what comes back follows it.
        """
        shape = self.place.whole if self.place.strides is None else self.place.strides[0]
        leaf = like.new_zeros(shape, dtype=self._dtype).requires_grad_()
        return get_gradient_edge(self._apply(leaf)), leaf
