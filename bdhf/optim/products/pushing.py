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

from bdhf.optim.layout import split_like
from bdhf.optim.products.compiled import Compiled
from bdhf.optim.products.pulling import pulled
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
    """J v along a tape, to the outputs or to a value on the way; and Jᵀw, where that is shorter."""

    def __init__(self, tape: Tape, target: int, back: bool = True) -> None:
        """`back` allows it to go back along the tape as well."""
        self._tape, self._target, self.back = tape, target, back
        self._replays: dict[tuple[int, ...], Replay] = {}

    def __call__(self, tangents: Mapping[int, Tensor]) -> Tensor | None:
        """Replay the operators that the given parameters reach."""
        return self._replay(tangents).push(tangents)

    def pull(self, w: Tensor, rooms: Mapping[int, Tensor]) -> bool:
        """Write Jᵀw for some parameters into a room for each; w has the shape of the target.

        False: the graph is no longer than the replay, so it is to be taken, and nothing is written.
        """
        replay = self._replay(rooms)
        if not self.back or not replay.condensed:
            return False
        replay.pull(w, rooms)
        return True

    def _replay(self, sources: Mapping[int, Tensor]) -> Replay:
        """What is replayed for some parameters, or tensors of their shapes."""
        key = tuple(sources)
        if key not in self._replays:
            self._replays[key] = Replay(route(self._tape, key, self._target), sources)
        return self._replays[key]


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
        return jv.detach()  # torch 2.9's zeros require a gradient


def transposed(
    push: Push, end: Tensor, parameters: Mapping[int, Tensor], w: Tensor, out: Tensor | None = None
) -> Tensor:
    """Jᵀw of some parameters, by number, one behind the other; `push` is J v from them to `end`.

    Along the tape where that is shorter, else on the graph of `end`. It is written into `out`,
    where that is given.
    """
    touched = list(parameters.values())
    if not isinstance(push, OnTape):
        return pulled(end, touched, w, out)
    if out is None:
        out = w.new_empty(sum(tensor.numel() for tensor in touched), dtype=touched[0].dtype)
    rooms = dict(zip(parameters, split_like(out, touched), strict=True))
    return out if push.pull(w, rooms) else pulled(end, touched, w, out)


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
    del exact  # its graph is as large as that of the outputs
    assert tape.output is not None  # a tape without one has a problem
    if request.settings.compile:
        return Compiled(tape, tape.output, request.workspace, request.shapes), ""
    return OnTape(tape, tape.output, back=_goes_back(request, tape, z)), ""


def _goes_back(request: Request, tape: Tape, z: Tensor) -> bool:
    """Whether Jᵀw along the tape is what the graph gives; compared once, like J v."""
    assert tape.output is not None
    kept, parameters = request.workspace.kept, request.objective.parameters
    key = ("pull", request.shapes, tape.structure)
    if key not in kept:
        (w,) = probe([z])
        exact = pulled(z, parameters, w)
        found = torch.zeros_like(exact)
        rooms = dict(enumerate(split_like(found, parameters)))
        if not OnTape(tape, tape.output).pull(w, rooms):
            kept[key] = False
        else:
            error = (found - exact).norm()
            kept[key] = bool(error <= tolerance_of(z, request) * exact.norm())
    agrees: bool = kept[key]
    return agrees


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
