"""One use of a parameter: which part of it, and the linear map from it to y."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from bdhf.optim.products.site_samples import Inputs


@dataclass(frozen=True)
class ParameterView:
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
        view: ParameterView,
        apply: Callable[[Tensor], Tensor],
        rows: Callable[[Tensor], Tensor],
        dtype: torch.dtype,
        adjoint: Callable[[Tensor], Tensor] | None = None,
        inputs: Callable[[], Inputs] | None = None,
    ) -> None:
        """`adjoint` is that of `apply`; None: autograd computes it. A weight has `inputs`."""
        self.view, self.rows, self.inputs = view, rows, inputs
        self._apply, self._dtype, self._adjoint = apply, dtype, adjoint
        self._graph: tuple[GradientEdge, Tensor] | None = None

    def push(self, tangent: Tensor) -> Tensor:
        """The tangent of y for a tangent of the parameter; broadcasts to the shape of y."""
        v = self.view.of(tangent).to(self._dtype)
        if self._graph is None and self._adjoint is None:
            return self._first(v).to(tangent.dtype)
        with torch.no_grad():
            return self._apply(v).to(tangent.dtype)

    def pull(self, cotangent: Tensor) -> Tensor:
        """The adjoint of `push`: the cotangent of the parameter for one of y."""
        w = cotangent.to(self._dtype)
        part = self._by_graph(w) if self._adjoint is None else self._adjoint(w)
        return self.view.whole_of(part.to(cotangent.dtype))

    def _by_graph(self, w: Tensor) -> Tensor:
        """The adjoint by autograd."""
        if self._graph is None:
            self._first(self.view.of(w.new_zeros(self.view.whole)))
        assert self._graph is not None
        edge, leaf = self._graph
        (part,) = torch.autograd.grad(edge, leaf, w, retain_graph=True)
        return part

    def _first(self, v: Tensor) -> Tensor:
        """Push with a graph, which holds for any v since the map is linear.

        On a copy: the graph may keep it, and CG changes its vectors.
        """
        with torch.enable_grad():
            leaf = v.detach().clone().requires_grad_()
            out = self._apply(leaf)
            self._graph = get_gradient_edge(out), leaf
        return out.detach()
