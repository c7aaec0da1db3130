"""Solvers of the damped block systems. One file each; what they share is in `system`."""

from bdhf.optim.solvers.cg import CG
from bdhf.optim.solvers.cholesky import Cholesky
from bdhf.optim.solvers.direction import Direction
from bdhf.optim.solvers.preconditioners import (
    EKFAC,
    KFAC,
    Inverse,
    Martens,
    NeedsSites,
    NoPreconditioner,
    Nystrom,
    Preconditioner,
    Recycled,
)
from bdhf.optim.solvers.saddle_free import SaddleFree
from bdhf.optim.solvers.sample_space import SampleSpace
from bdhf.optim.solvers.stopping import (
    Forcing,
    History,
    MartensProgress,
    RelativeResidual,
    StopRule,
)
from bdhf.optim.solvers.system import Iterate, Matrix, Solution, Solver, Stop, System

__all__ = [
    "CG",
    "EKFAC",
    "KFAC",
    "Cholesky",
    "Direction",
    "Forcing",
    "History",
    "Inverse",
    "Iterate",
    "Martens",
    "MartensProgress",
    "Matrix",
    "NeedsSites",
    "NoPreconditioner",
    "Nystrom",
    "Preconditioner",
    "Recycled",
    "RelativeResidual",
    "SaddleFree",
    "SampleSpace",
    "Solution",
    "Solver",
    "Stop",
    "StopRule",
    "System",
]
