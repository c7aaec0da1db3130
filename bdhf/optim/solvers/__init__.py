"""Solvers of the damped block systems. One file each; what they share is in `system`."""

from bdhf.optim.solvers.cg import CG
from bdhf.optim.solvers.cholesky import Cholesky
from bdhf.optim.solvers.preconditioners import (
    KFAC,
    Inverse,
    Martens,
    NoPreconditioner,
    Nystrom,
    Preconditioner,
    Recycled,
)
from bdhf.optim.solvers.sample_space import SampleSpace
from bdhf.optim.solvers.system import Iterate, Matrix, Solution, Solver, Stop, System

__all__ = [
    "CG",
    "KFAC",
    "Cholesky",
    "Inverse",
    "Iterate",
    "Martens",
    "Matrix",
    "NoPreconditioner",
    "Nystrom",
    "Preconditioner",
    "Recycled",
    "SampleSpace",
    "Solution",
    "Solver",
    "Stop",
    "System",
]
