"""Solving the damped systems of one update: CG, Woodbury in the space of the samples, Cholesky.

The systems are those of a first update: (G_bb + λI) x_b = -g_b for the blocks of a solver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

import bdhf

from .devices import DEVICES, Clock
from .linearising import linearising
from .memory import peak_bytes
from .models import example
from .tracked import Gathered, Timed, amount, count, gathered, taken

DAMPING = 1e-3

timer = Clock()


def _thirty() -> bdhf.CG:
    return bdhf.CG(max_iters=30, tol=0.0, warm_start=0.0)


def _progress(**parts: Any) -> bdhf.CG:
    return bdhf.CG(max_iters=250, tol=5e-4, **parts)


#: Name -> constructor of the solver, and the model and partition of its systems.
SOLVERS: Mapping[str, tuple[Callable[[], bdhf.optim.Solver], str, str]] = {
    "cg full": (_thirty, "classifier", "full"),
    "cg groups": (_thirty, "classifier", "groups"),
    "cg per_neuron": (_thirty, "classifier", "per_neuron"),
    "cg until progress ends": (_progress, "classifier", "per_layer"),
    "cg preconditioned": (
        lambda: _progress(preconditioner=bdhf.Martens()), "classifier", "per_layer",
    ),
    "sample_space full": (lambda: bdhf.SampleSpace(), "classifier", "full"),
    "sample_space per_layer": (lambda: bdhf.SampleSpace(), "classifier", "per_layer"),
    "cholesky per_neuron": (lambda: bdhf.Cholesky(), "resnet", "per_neuron"),
}  # fmt: skip


@dataclass(frozen=True)
class Solving:
    """A solver on its systems."""

    solve: Callable[[], bdhf.optim.solvers.Solution]
    device: str


@lru_cache(maxsize=1)
def solving(name: str, device: str, dtype: torch.dtype) -> Solving:
    """The systems of this solver, linearised once."""
    from bdhf.optim.solvers import System

    make, model, partition = SOLVERS[name]
    solver = make()
    own = example(model, device, dtype)
    blocks, linearise = linearising(
        own.model, own.loss, own.batch, bdhf.GGN(), own.partition(partition),
        products=solver.products,
    )  # fmt: skip
    product = linearise()
    rhs = product.gradient.neg()
    damping = rhs.new_full((len(blocks.rows),), DAMPING)
    system = System(blocks, product, rhs, damping)

    def solve() -> bdhf.optim.solvers.Solution:
        with torch.no_grad():
            return solver.solve(system)

    solve()  # makes the counts and choices of a run
    return Solving(solve, device)


class Solve(Timed):
    """One solve of all blocks from zero, in float32 as a run has it."""

    param_names = ("solver", "device")
    params = (tuple(SOLVERS), DEVICES)

    def setup(self, name: str, device: str) -> None:
        """Take the systems of this solver."""
        self.solving = solving(name, device, torch.float32)

    def time_solve(self, *_: str) -> None:
        """Seconds of the solve."""
        self.solving.solve()

    @amount("bytes")
    def track_peak(self, *_: str) -> int:
        """Bytes held at once by the solve, products included."""
        return peak_bytes(self.solving.solve, self.solving.device)


def took(name: str, device: str) -> Mapping[str, float]:
    """Iterations and products of all blocks together, in float64."""
    solution = solving(name, device, torch.float64).solve()
    return {"iterations": sum(solution.iterations), "products": sum(solution.products)}


class Counted:
    """The counts of one solve in float64."""

    param_names = ("solver", "device")
    params = (tuple(SOLVERS), DEVICES)

    def setup_cache(self) -> Gathered:
        """Solve once for all numbers."""
        return gathered(took, self.params)

    def setup(self, cache: Gathered, *combination: str) -> None:
        """Take those of this solver."""
        self.took = taken(cache, combination)

    @count("iterations")
    def track_iterations(self, *_: str) -> float:
        """Iterations of all blocks together."""
        return self.took["iterations"]

    @count("products")
    def track_products(self, *_: str) -> float:
        """Products of all blocks together; a row of a factor is half of one."""
        return self.took["products"]
