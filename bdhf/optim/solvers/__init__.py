"""Solvers of the damped block systems. One file each; what they share is in `system`."""

from bdhf.optim.solvers.cg import CG
from bdhf.optim.solvers.system import Solution, Solver, Stop, System

__all__ = ["CG", "Solution", "Solver", "Stop", "System"]
