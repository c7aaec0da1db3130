"""J v: along the tape of a forward pass, or by a second reverse sweep where the tape fails.

The choice is made once per shape and structure of the pass, by comparing both on a random vector: a
tape records neither a custom backward nor a value that was changed without an operator. Where torch
has no second derivative, the tape is compared with reverse mode (`agreement.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.products.agreement import adjoint_error, random_tangents, tolerance_of
from bdhf.optim.products.no_derivative import no_second_derivative
from bdhf.optim.products.propagate.jvp import JVP, DoubleBackwardJVP, TapeJVP
from bdhf.optim.products.request import Request
from bdhf.optim.products.tape.compiled import Compiled
from bdhf.optim.products.tape.tape import NO_OUTPUT, Tape
from bdhf.optim.products.vjp import vjp
from bdhf.optim.torch_support.failures import Failure, attempt
from bdhf.optim.torch_support.graphs import is_own_function, nodes_behind
from bdhf.optim.vectors.layout import split_like

#: Why the tape is not used at a linearisation that decides nothing.
NOT_FINITE = "the products are not finite"


def choose_jvp(request: Request, tape: Tape, z: Tensor) -> tuple[JVP, str]:
    """Return J v, and why it does not use the tape; empty where it does.

    Raises CurvatureError where neither works.
    """
    kept, key = request.workspace.kept, ("push", request.shapes, tape.structure)
    if key not in kept:
        verdict = _verdict(request, tape, z)
        if verdict is None:  # NaN: decide at a later linearisation
            return _undecided(request, tape, z), NOT_FINITE
        kept[key] = verdict or tape.blind
    if kept[key]:
        return two_sweeps(request, z, kept[key]), kept[key]
    assert tape.output is not None  # a tape without one has a problem
    if request.settings.compile:
        return Compiled(tape, tape.output, request.workspace, request.shapes), ""
    return TapeJVP(tape, tape.output, back=_goes_back(request, tape, z)), ""


def fall_back(
    request: Request, structure: int, z: Tensor, failure: Failure
) -> tuple[DoubleBackwardJVP, str]:
    """Use two reverse sweeps from now on, since the tape failed in a product.

    Raises CurvatureError where there is no second derivative.
    """
    problem = f"the tape failed in a product: {failure.reason}"
    push = two_sweeps(request, z, problem)
    request.workspace.kept["push", request.shapes, structure] = problem
    return push, problem


def two_sweeps(request: Request, z: Tensor, problem: str) -> DoubleBackwardJVP:
    """J v by double backward. Raises CurvatureError, naming a module, where that does not exist.

    `problem` is why the tape cannot be used.
    """
    exact = attempt(lambda: uncut(request, z))
    if isinstance(exact, Failure):
        raise no_second_derivative(request, exact, problem)
    key = "two sweeps", request.shapes
    again = key in request.workspace.kept and any(map(is_own_function, nodes_behind([z])))
    reason = _once(request, key, lambda: _flaw(request, exact, z))
    if again and not reason:  # a wrong backward may have been multiplied by 0 before
        reason = _flaw(request, exact, z, draws=1, by_block=False)
    if reason:
        raise no_second_derivative(request, Failure(RuntimeError(reason)), problem)
    return exact


def uncut(request: Request, z: Tensor) -> DoubleBackwardJVP:
    """J v by double backward. Raises RuntimeError where torch has none, or its graph is cut."""
    exact = DoubleBackwardJVP(z, request.objective.parameters)
    if exact.is_cut:
        raise RuntimeError("it is marked once_differentiable")
    return exact


def _flaw(request: Request, exact: DoubleBackwardJVP, z: Tensor, **how: Any) -> str | None:
    """Why double backward must not be used; empty if it may, None if undecided."""
    error = attempt(lambda: adjoint_error(exact, z, request, **how))
    if isinstance(error, Failure):
        return error.line
    if error is None:
        return None
    differs = error > tolerance_of(z, request)
    return f"its second derivative differs from its first by {error:.2g}" if differs else ""


def _once(request: Request, key: Hashable, work: Callable[[], str | None]) -> str | None:
    """The result of `work`, kept unless it is None."""
    kept = request.workspace.kept
    if key in kept:
        before: str = kept[key]
        return before
    reason = work()
    if reason is not None:
        kept[key] = reason
    return reason


def _undecided(request: Request, tape: Tape, z: Tensor) -> JVP:
    """J v for products that are not finite, by whichever method works."""
    exact = attempt(lambda: DoubleBackwardJVP(z, request.objective.parameters))
    if not isinstance(exact, Failure):
        return exact
    if tape.problem or tape.output is None:
        raise no_second_derivative(request, exact, tape.problem)
    return TapeJVP(tape, tape.output, back=False)


@torch.no_grad()
def _verdict(request: Request, tape: Tape, z: Tensor) -> str | None:
    """Why the tape must not be used; empty if it may, None if undecided.

    It is compared with double backward; where that does not exist, with reverse mode.
    """
    if tape.problem or tape.output is None:
        return tape.problem or NO_OUTPUT
    push = TapeJVP(tape, tape.output, back=False)
    tangents = dict(enumerate(random_tangents(request.objective.parameters)))
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
    return _against_reverse_mode(push, z, request, draws=1, by_block=False)  # both may be wrong


def _finite(vector: Tensor | None) -> bool:
    return vector is None or bool(vector.isfinite().all())


def _against_reverse_mode(push: JVP, z: Tensor, request: Request, **how: Any) -> str | None:
    """How J v and Jᵀw differ; empty: they agree; None: undecided."""
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
    """Why Jᵀw does not use the tape, where that failed; else empty."""
    reason: str = request.workspace.kept.get(_back_key(request, structure), "")
    return f", Jᵀw on the graph ({reason})" if reason else ""


def _goes_back(request: Request, tape: Tape, z: Tensor) -> bool:
    """Whether Jᵀw along the tape equals that on the graph; compared once, like J v."""
    assert tape.output is not None
    kept, parameters = request.workspace.kept, request.objective.parameters
    key = ("pull", request.shapes, tape.structure)
    if key not in kept:
        (w,) = random_tangents([z])
        exact = vjp(z, parameters, w)
        pulled = torch.zeros_like(exact)
        buffers = dict(enumerate(split_like(pulled, parameters)))
        tried = TapeJVP(tape, tape.output)
        pulls = attempt(lambda: tried.pull(w, buffers))
        if isinstance(pulls, Failure):
            kept[_back_key(request, tape.structure)] = pulls.reason
        if isinstance(pulls, Failure) or not pulls:
            kept[key] = False
        else:
            error = (pulled - exact).norm()
            kept[key] = bool(error <= tolerance_of(z, request) * exact.norm())
    agrees: bool = kept[key]
    return agrees
