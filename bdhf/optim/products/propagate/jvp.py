"""J v and Jᵀw: along the tape of a forward pass, or by a second reverse sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from bdhf.optim.products.tape.replay import Replay
from bdhf.optim.products.tape.route import route
from bdhf.optim.products.tape.tape import Tape
from bdhf.optim.products.vjp import vjp
from bdhf.optim.torch_support.graphs import ends_early
from bdhf.optim.vectors.layout import split_like


class JVP(Protocol):
    """J v for tangents v of some parameters."""

    def __call__(self, tangents: Mapping[int, Tensor]) -> Tensor | None:
        """Σ_i J_i v_i over the parameters i, shape of z; None where z depends on none."""


class TapeJVP:
    """J v along a tape, to the outputs or another value; and Jᵀw, where that is shorter."""

    def __init__(self, tape: Tape, target: int, back: bool = True) -> None:
        """`back` permits Jᵀw along the tape."""
        self._tape, self._target, self.back = tape, target, back
        self._replays: dict[tuple[int, ...], Replay] = {}

    def __call__(self, tangents: Mapping[int, Tensor]) -> Tensor | None:
        """Replay the operators that the parameters reach."""
        return self._replay(tangents).push(tangents)

    def pull(self, w: Tensor, buffers: Mapping[int, Tensor]) -> bool:
        """Write Jᵀw for each parameter into its buffer; w has the shape of the target.

        False: the graph is no longer than the replay, so use the graph; nothing is written.
        """
        replay = self._replay(buffers)
        if not self.back or not replay.condensed:
            return False
        replay.pull(w, buffers)
        return True

    def _replay(self, sources: Mapping[int, Tensor]) -> Replay:
        """The replay for some parameters, or tensors of their shapes."""
        key = tuple(sources)
        if key not in self._replays:
            self._replays[key] = Replay(route(self._tape, key, self._target), sources)
        return self._replays[key]


class DoubleBackwardJVP:
    """J v = ∂⟨q(u), v⟩/∂u, with q(u) = Jᵀu kept as a graph; for all models."""

    def __init__(self, z: Tensor, parameters: Sequence[Tensor]) -> None:
        """Raises RuntimeError for an operator without a differentiable backward pass."""
        self._u = torch.zeros_like(z, requires_grad=True)
        with torch.enable_grad():
            self._q = torch.autograd.grad(
                z, parameters, self._u,
                create_graph=True, allow_unused=True, materialize_grads=True,
            )  # fmt: skip

    @property
    def is_cut(self) -> bool:
        """Whether the graph of q ends in a function that is marked once_differentiable."""
        return ends_early(self._q)

    def __call__(self, tangents: Mapping[int, Tensor]) -> Tensor | None:
        """One reverse sweep through the graph of q."""
        reached = [(self._q[i], t) for i, t in tangents.items() if self._q[i].requires_grad]
        if not reached:
            return None
        (jv,) = torch.autograd.grad(
            [q for q, _ in reached], self._u, [tangent for _, tangent in reached],
            retain_graph=True, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        return jv.detach()  # torch 2.9's zeros require a gradient


def vjp_of(
    push: JVP, end: Tensor, parameters: Mapping[int, Tensor], w: Tensor, out: Tensor | None = None
) -> Tensor:
    """Jᵀw of some parameters, by number, concatenated; `push` is J v from them to `end`.

    Along the tape where that is shorter, else on the graph of `end`. Written into `out`, if passed.
    """
    touched = list(parameters.values())
    if not isinstance(push, TapeJVP):
        return vjp(end, touched, w, out)
    if out is None:
        out = w.new_empty(sum(tensor.numel() for tensor in touched), dtype=touched[0].dtype)
    buffers = dict(zip(parameters, split_like(out, touched), strict=True))
    return out if push.pull(w, buffers) else vjp(end, touched, w, out)
