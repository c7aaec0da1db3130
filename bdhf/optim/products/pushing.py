"""J v: along the tape of a forward pass, or by a second reverse sweep where that cannot be.

Which of the two is decided once per shape and structure of the pass, by comparing them on a random
vector: a tape does not see what a custom backward pretends, nor a value that was changed behind its
back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from bdhf.optim.products.compiled import Compiled
from bdhf.optim.products.replay import Replay
from bdhf.optim.products.request import Request
from bdhf.optim.products.tape import Tape, route

#: What rounding may explain, by precision.
TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-3}
LOOSE = 0.1  # for shorter floating-point numbers


class Push(Protocol):
    """J v for tangents v of some parameters."""

    def __call__(self, tangents: Mapping[int, Tensor]) -> Tensor | None:
        """Σ_i J_i v_i over the given parameters i, shape of z; None where z depends on none."""


class OnTape:
    """J v along a tape, to the outputs or to a value on the way."""

    def __init__(self, tape: Tape, target: int) -> None:
        self._tape, self._target = tape, target
        self._replays: dict[tuple[int, ...], Replay] = {}

    def __call__(self, tangents: Mapping[int, Tensor]) -> Tensor | None:
        """Replay the operators that the given parameters reach."""
        sources = tuple(tangents)
        if sources not in self._replays:
            self._replays[sources] = Replay(route(self._tape, sources, self._target))
        return self._replays[sources](dict(tangents))


class ByDoubleBackward:
    """J v = ∂⟨q(u), v⟩/∂u, with q(u) = Jᵀu kept as a graph; for every model and operator."""

    def __init__(self, z: Tensor, parameters: Sequence[Tensor]) -> None:
        self._u = torch.zeros_like(z, requires_grad=True)
        with torch.enable_grad():
            self._q = torch.autograd.grad(
                z, parameters, self._u,
                create_graph=True, allow_unused=True, materialize_grads=True,
            )  # fmt: skip

    def __call__(self, tangents: Mapping[int, Tensor]) -> Tensor | None:
        """One reverse sweep through the graph of q."""
        reached = [(self._q[i], t) for i, t in tangents.items() if self._q[i].requires_grad]
        if not reached:
            return None
        (jv,) = torch.autograd.grad(
            [q for q, _ in reached], self._u, [tangent for _, tangent in reached],
            retain_graph=True, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        return jv


def probe(parameters: Sequence[Tensor]) -> list[Tensor]:
    """A fixed random tensor of the shape of every parameter, for ways that must agree.

    Drawn on the CPU, so that every device is asked the same.
    """
    draws = torch.Generator().manual_seed(0)
    return [torch.randn(p.shape, generator=draws).to(p) for p in parameters]


def tolerance_of(z: Tensor, request: Request) -> float:
    """Relative difference of two ways to the same vector that rounding may explain."""
    return TOLERANCES.get(request.settings.dtype or z.dtype, LOOSE)


def choose_push(request: Request, tape: Tape, z: Tensor) -> tuple[Push, str]:
    """Give the way to J v, and why it is not the tape; empty where it is."""
    parameters, kept = request.objective.parameters, request.workspace.kept
    key = ("push", request.shapes, tape.structure)
    exact = None
    if key not in kept:
        exact = ByDoubleBackward(z, parameters)
        found = _problem(tape, exact, parameters, tolerance_of(z, request))
        if found is None:  # there is NaN in it: nothing can be told today
            return exact, "the products are not finite"
        kept[key] = found
    if kept[key]:
        return exact or ByDoubleBackward(z, parameters), kept[key]
    assert tape.output is not None  # a tape without one has a problem
    if request.settings.compile:
        return Compiled(tape, tape.output, request.workspace, request.shapes), ""
    return OnTape(tape, tape.output), ""


@torch.no_grad()
def _problem(tape: Tape, exact: Push, parameters: Sequence[Tensor], tolerance: float) -> str | None:
    """Why the tape must not be used; empty if it may, None if that cannot be told."""
    if tape.problem or tape.output is None:
        return tape.problem
    tangents = dict(enumerate(probe(parameters)))
    try:
        found = OnTape(tape, tape.output)(tangents)
    except (NotImplementedError, RuntimeError) as refusal:
        return f"no forward mode: {str(refusal).splitlines()[0]}"
    expected = exact(tangents)
    if found is None or expected is None:
        return "" if found is expected else "the tape does not reach the outputs"
    error, scale = float((found - expected).norm()), float(expected.norm())
    if not (error < torch.inf and scale < torch.inf):
        return None
    if error > tolerance * scale:
        return f"forward mode differs from reverse mode by {error / scale:.2g}"
    return ""
