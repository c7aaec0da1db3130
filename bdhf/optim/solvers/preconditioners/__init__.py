"""Preconditioners of CG: an approximation M of G + λI whose inverse is cheap. One file each."""

from bdhf.optim.solvers.preconditioners.diagonal import Martens, NoPreconditioner
from bdhf.optim.solvers.preconditioners.ekfac import EKFAC
from bdhf.optim.solvers.preconditioners.kfac import KFAC
from bdhf.optim.solvers.preconditioners.preconditioner import (
    Costed,
    Inverse,
    NeedsSites,
    Preconditioner,
)

__all__ = [
    "EKFAC",
    "KFAC",
    "Costed",
    "Inverse",
    "Martens",
    "NeedsSites",
    "NoPreconditioner",
    "Preconditioner",
]
