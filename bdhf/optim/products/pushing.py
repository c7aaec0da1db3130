"""J v: along the tape of a forward pass, or by a second reverse sweep where that cannot be.

Which of the two is decided once per shape and structure of the pass, by comparing them on a random
vector: a tape does not see what a custom backward pretends, nor a value that was changed behind its
back. Where torch has no second derivative, the tape is compared with reverse mode (`adjoint.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from bdhf.optim.failures import Failure, attempt
from bdhf.optim.graphs import ends_early, is_own_function, nodes_behind
from bdhf.optim.layout import split_like
from bdhf.optim.products.adjoint import adjoint_error
from bdhf.optim.products.compiled import Compiled
from bdhf.optim.products.no_derivative import no_second_derivative
from bdhf.optim.products.probing import probe
from bdhf.optim.products.pulling import pulled
from bdhf.optim.products.replay import Replay
from bdhf.optim.products.request import Request
from bdhf.optim.products.route import route
from bdhf.optim.products.tape import Tape

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
        """Raises RuntimeError for an operator that torch cannot go back through with a graph."""
        self._u = torch.zeros_like(z, requires_grad=True)
        with torch.enable_grad():
            self._q = torch.autograd.grad(
                z, parameters, self._u,
                create_graph=True, allow_unused=True, materialize_grads=True,
            )  # fmt: skip

    @property
    def is_cut(self) -> bool:
        """Whether the graph of q ends in a function that may be differentiated only once."""
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


def tolerance_of(z: Tensor, request: Request) -> float:
    """Relative difference of two ways to the same vector that rounding may explain."""
    return TOLERANCES.get(request.settings.dtype or z.dtype, LOOSE)


def choose_push(request: Request, tape: Tape, z: Tensor) -> tuple[Push, str]:
    """Give the way to J v, and why it is not the tape; empty where it is.

    Raises CurvatureError where neither serves.
    """
    kept, key = request.workspace.kept, ("push", request.shapes, tape.structure)
    if key not in kept:
        verdict = _verdict(request, tape, z)
        if verdict is None:  # there is NaN in it: nothing can be told today
            return _untold(request, tape, z), "the products are not finite"
        kept[key] = verdict or tape.blind
    if kept[key]:
        return two_sweeps(request, z, kept[key]), kept[key]
    assert tape.output is not None  # a tape without one has a problem
    if request.settings.compile:
        return Compiled(tape, tape.output, request.workspace, request.shapes), ""
    return OnTape(tape, tape.output, back=_goes_back(request, tape, z)), ""


def give_way(
    request: Request, structure: int, z: Tensor, failure: Failure
) -> tuple[ByDoubleBackward, str]:
    """Two reverse sweeps, from now on, since the tape failed in a product.

    Raises CurvatureError where there is no second derivative.
    """
    problem = f"the tape failed in a product: {failure.reason}"
    push = two_sweeps(request, z, problem)
    request.workspace.kept["push", request.shapes, structure] = problem
    return push, problem


def two_sweeps(request: Request, z: Tensor, problem: str) -> ByDoubleBackward:
    """J v by double backward. Raises CurvatureError, naming a module, where that does not exist.

    `problem` says why the tape cannot serve.
    """
    exact = attempt(lambda: uncut(request, z))
    if isinstance(exact, Failure):
        raise no_second_derivative(request, exact, problem)
    key = "two sweeps", request.shapes
    again = key in request.workspace.kept and any(map(is_own_function, nodes_behind([z])))
    reason = _once(request, key, lambda: _flaw(request, exact, z))
    if again and not reason:  # what it pretends may have been multiplied by 0 before
        reason = _flaw(request, exact, z, draws=1, by_block=False)
    if reason:
        raise no_second_derivative(request, Failure(RuntimeError(reason)), problem)
    return exact


def uncut(request: Request, z: Tensor) -> ByDoubleBackward:
    """J v by double backward. Raises RuntimeError where torch has none, or its graph is cut."""
    exact = ByDoubleBackward(z, request.objective.parameters)
    if exact.is_cut:
        raise RuntimeError("it is marked once_differentiable")
    return exact


def _flaw(request: Request, exact: ByDoubleBackward, z: Tensor, **how: Any) -> str | None:
    """Why double backward must not be used; empty if it may, None if that cannot be told."""
    error = attempt(lambda: adjoint_error(exact, z, request, **how))
    if isinstance(error, Failure):
        return error.line
    if error is None:
        return None
    differs = error > tolerance_of(z, request)
    return f"its second derivative differs from its first by {error:.2g}" if differs else ""


def _once(request: Request, key: Hashable, work: Callable[[], str | None]) -> str | None:
    """What `work` tells, kept unless it is None."""
    kept = request.workspace.kept
    if key in kept:
        before: str = kept[key]
        return before
    told = work()
    if told is not None:
        kept[key] = told
    return told


def _untold(request: Request, tape: Tape, z: Tensor) -> Push:
    """A way to J v for products that are not finite, whichever there is."""
    exact = attempt(lambda: ByDoubleBackward(z, request.objective.parameters))
    if not isinstance(exact, Failure):
        return exact
    if tape.problem or tape.output is None:
        raise no_second_derivative(request, exact, tape.problem)
    return OnTape(tape, tape.output, back=False)


@torch.no_grad()
def _verdict(request: Request, tape: Tape, z: Tensor) -> str | None:
    """Why the tape must not be used; empty if it may, None if that cannot be told.

    It is compared with double backward; where that does not exist, with reverse mode.
    """
    if tape.problem or tape.output is None:
        return tape.problem or "its outputs come from no operator that was seen"
    push = OnTape(tape, tape.output, back=False)
    tangents = dict(enumerate(probe(request.objective.parameters)))
    moved = attempt(lambda: push(tangents))
    if isinstance(moved, Failure):
        return f"no forward mode: {moved.line}"
    expected = attempt(lambda: uncut(request, z)(tangents))
    if isinstance(expected, Failure) or (_finite(moved) and not _finite(expected)):
        return _against_reverse_mode(push, z, request)
    if moved is None or expected is None:
        return "" if moved is expected else "the tape does not reach the outputs"
    error, scale = float((moved - expected).norm()), float(expected.norm())
    if not (error < torch.inf and scale < torch.inf):
        return None
    if error > tolerance_of(z, request) * scale:
        problem = f"forward mode differs from reverse mode by {error / scale:.2g}"
        return problem if _against_reverse_mode(push, z, request) else ""
    return _against_reverse_mode(push, z, request, draws=1, by_block=False)  # both may be blind


def _finite(vector: Tensor | None) -> bool:
    return vector is None or bool(vector.isfinite().all())


def _against_reverse_mode(push: Push, z: Tensor, request: Request, **how: Any) -> str | None:
    """What differs between J v and Jᵀw; empty: nothing; None: it cannot be told."""
    error = attempt(lambda: adjoint_error(push, z, request, **how))
    if isinstance(error, Failure):
        return f"no forward mode: {error.line}"
    if error is None:
        return None
    if error > tolerance_of(z, request):
        return f"forward mode differs from reverse mode by {error:.2g}"
    return ""


def _back_key(request: Request, structure: int) -> Hashable:
    return "no way back", request.shapes, structure


def no_way_back(request: Request, structure: int) -> str:
    """Why Jᵀw is not along the tape, where that failed; else empty."""
    reason: str = request.workspace.kept.get(_back_key(request, structure), "")
    return f", Jᵀw on the graph ({reason})" if reason else ""


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
        tried = OnTape(tape, tape.output)
        pulls = attempt(lambda: tried.pull(w, rooms))
        if isinstance(pulls, Failure):
            kept[_back_key(request, tape.structure)] = pulls.reason
        if isinstance(pulls, Failure) or not pulls:
            kept[key] = False
        else:
            error = (found - exact).norm()
            kept[key] = bool(error <= tolerance_of(z, request) * exact.norm())
    agrees: bool = kept[key]
    return agrees
