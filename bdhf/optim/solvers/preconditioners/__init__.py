"""Preconditioners of CG: an approximation M of G + λI whose inverse is cheap. One file each."""

from bdhf.optim.solvers.preconditioners.diagonal import Martens, NoPreconditioner
from bdhf.optim.solvers.preconditioners.ekfac import EKFAC
from bdhf.optim.solvers.preconditioners.kfac import KFAC
from bdhf.optim.solvers.preconditioners.nystrom import Nystrom
from bdhf.optim.solvers.preconditioners.preconditioner import (
    Costed,
    FromProducts,
    Inverse,
    LastingInverse,
    NeedsSites,
    Preconditioner,
    cost_of,
)
from bdhf.optim.solvers.preconditioners.recycled import Recycled

__all__ = [
    "EKFAC",
    "KFAC",
    "Costed",
    "FromProducts",
    "Inverse",
    "LastingInverse",
    "Martens",
    "NeedsSites",
    "NoPreconditioner",
    "Nystrom",
    "Preconditioner",
    "Recycled",
    "cost_of",
]
