"""Products at a bottleneck: a value with few numbers per sample, such as an autoencoder's code.

Where a block affects z only through c_n, of w numbers per sample,

    J_bᵀ H J_b = Σ_n (∂c_n/∂θ_b)ᵀ K_n (∂c_n/∂θ_b),    K_n = (∂z_n/∂c_n)ᵀ H_n (∂z_n/∂c_n)   (w × w)

so with K_n, computed once, products skip the sweeps behind the bottleneck, forward and back. K_n
takes w sweeps where all columns of the Jacobian fit into memory, and more where only some do.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.losses import OutputHessian, recognise
from bdhf.optim.products.agreement import random_tangents, tolerance_of
from bdhf.optim.products.propagate.find_bottleneck import (
    BOTTLENECK_COLUMNS,
    Bottleneck,
    Slots,
    count_sets,
    find_bottleneck,
)
from bdhf.optim.products.propagate.jvp import JVP, TapeJVP, vjp_of
from bdhf.optim.products.propagate.sample_independence import always_apart, apart, loss_apart
from bdhf.optim.products.request import Request
from bdhf.optim.products.tape.route import Route, route
from bdhf.optim.products.tape.tape import Tape


@dataclass(frozen=True)
class SampleMatrices:
    """H = diag(K_1 … K_N), one dense matrix per sample: the H at a bottleneck."""

    k: Tensor  # (N, w, w)

    @property
    def root_shape(self) -> tuple[int, ...]:
        """One column per number at the bottleneck."""
        return tuple(self.k.shape[:2])

    def __call__(self, w: Tensor) -> Tensor:
        """K w, (N, ...) -> (N, ...)."""
        moved = torch.bmm(self.k, w.to(self.k.dtype).reshape(len(self.k), -1, 1))
        return moved.to(w.dtype).view_as(w)

    def root(self, u: Tensor) -> Tensor:
        """Refuse: factors are computed at the outputs."""
        raise ValueError("the matrix at a bottleneck has no root: factors are those at the outputs")


@dataclass(frozen=True)
class LinearisedBottleneck:
    """A bottleneck at one θ: the value c, J v up to it, and the matrix K at it."""

    bottleneck: Bottleneck
    c: Tensor
    push: TapeJVP  # to c
    hessian: SampleMatrices


def at_bottleneck(
    request: Request, tape: Tape, z: Tensor, hessian: OutputHessian, push: JVP
) -> LinearisedBottleneck | None:
    """The bottleneck that saves most, with its matrix; None where no bottleneck saves anything.

    It is chosen once per shape, structure of the pass and partition; then the products of all its
    blocks are compared with those of `push`. Every linearisation checks that samples stay
    independent behind it, and in a user's loss, unless no operator there can mix them.
    """
    kept, key = request.workspace.kept, _key(request, tape.structure)
    if key in kept and kept[key] is None:
        return None
    bottleneck = kept[key] if key in kept else find_bottleneck(request, tape, z)
    linearised = (
        None if bottleneck is None else _linearised(request, bottleneck, tape, z, hessian, push)
    )
    if key not in kept:
        agree = linearised is not None and request.flops.once(
            (
                "bottleneck agrees",
                request.shapes,
                linearised.bottleneck.value,
                linearised.bottleneck.blocks,
            ),
            lambda: all(
                _agrees(linearised, slots, z, hessian, push, request)
                for slots in linearised.bottleneck.blocks
            ),
        )
        kept[key] = bottleneck if agree else None
    return linearised if kept[key] is not None else None


def forget_bottleneck(request: Request, structure: int) -> None:
    """Use no bottleneck from now on for passes of this structure."""
    request.workspace.kept[_key(request, structure)] = None


def _key(request: Request, structure: int) -> Hashable:
    return "bottleneck", request.shapes, structure, frozenset(count_sets(request).items())


def _linearised(
    request: Request,
    bottleneck: Bottleneck,
    tape: Tape,
    z: Tensor,
    hessian: OutputHessian,
    push: JVP,
) -> LinearisedBottleneck | None:
    """The bottleneck at this θ; None where samples mix behind it, or in the loss."""
    assert tape.output is not None
    if recognise(request.objective.loss_fn) is None and not request.flops.once(
        ("loss apart", request.shapes), lambda: loss_apart(hessian, z, tolerance_of(z, request))
    ):
        return None
    c = tape.made(bottleneck.value)
    request.flops.release(tape.slim)  # the Jacobian comes next: the peak of memory
    behind = route(tape, (bottleneck.value,), tape.output)
    key = ("bottleneck", request.shapes, bottleneck.value)
    t = None if always_apart(behind, bottleneck.value, len(c)) else random_tangents([c])[0]
    with request.flops.counting(key):
        k, moved = _matrices(c, t, z, bottleneck, behind, hessian)
    if t is not None and not request.flops.once(
        ("bottleneck apart", request.shapes, bottleneck.value),
        lambda: apart(behind, bottleneck.value, t, moved, tolerance_of(z, request)),
    ):
        return None
    back = isinstance(push, TapeJVP) and push.back  # as checked on the whole tape
    return LinearisedBottleneck(
        bottleneck, c, TapeJVP(tape, bottleneck.value, back), SampleMatrices(k)
    )


@torch.no_grad()
def _matrices(
    c: Tensor,
    t: Tensor | None,
    z: Tensor,
    bottleneck: Bottleneck,
    behind: Route,
    hessian: OutputHessian,
) -> tuple[Tensor, Tensor]:
    """K, (N, w, w): the columns that are held, with themselves and with all later ones.

    And (∂z/∂c) t from the columns, (N, C), as for independent samples; 0 without t.
    """
    samples, width = len(c), bottleneck.width
    moved = z.new_zeros(samples, z[0].numel())

    def column(index: int) -> Tensor:
        """(∂z/∂c) e_index of every sample, (N, C)."""
        unit = torch.zeros_like(c).reshape(samples, width)
        unit[:, index] = 1
        tangent = behind({bottleneck.value: unit.view(c.shape)})
        assert tangent is not None  # the bottleneck is on the way to the outputs
        return tangent.reshape(samples, -1)

    k = z.new_empty(samples, width, width)
    for start in range(0, width, bottleneck.held):
        stop = min(width, start + bottleneck.held)
        jacobian = z.new_empty(samples, stop - start, z[0].numel())
        for index in range(start, stop):
            jacobian[:, index - start] = column(index)
            if t is not None:
                moved.addcmul_(t.flatten(1)[:, index, None].to(z.dtype), jacobian[:, index - start])
        for first in range(start, width, BOTTLENECK_COLUMNS):
            few = range(first, min(width, first + BOTTLENECK_COLUMNS))
            weighed = z.new_empty(samples, z[0].numel(), len(few))
            for at, index in enumerate(few):
                column_at = jacobian[:, index - start] if index < stop else column(index)
                weighed[:, :, at] = hessian(column_at.reshape(z.shape)).reshape(samples, -1)
            k[:, start:stop, few.start : few.stop] = torch.bmm(jacobian, weighed)
        k[:, stop:, start:stop] = k[:, start:stop, stop:].transpose(1, 2)
    return k, moved


@torch.no_grad()
def _agrees(
    linearised: LinearisedBottleneck,
    slots: Slots,
    z: Tensor,
    hessian: OutputHessian,
    push: JVP,
    request: Request,
) -> bool:
    """Whether a block's product at the bottleneck equals the one at the outputs."""
    touched = {i: request.objective.parameters[i] for i in slots}
    tangents = dict(zip(slots, random_tangents(list(touched.values())), strict=True))
    results = []
    for end, way, matrix in (
        (z, push, hessian),
        (linearised.c, linearised.push, linearised.hessian),
    ):
        tangent = way(tangents)
        assert tangent is not None  # a bottleneck lies between its blocks and the outputs
        results.append(vjp_of(way, end, touched, matrix(tangent)))
    at_outputs, at_code = results
    return bool((at_code - at_outputs).norm() <= 10 * tolerance_of(z, request) * at_outputs.norm())
