"""The method: curvature × partition × solver × damping × acceptance. Usable on its own."""

from bdhf.optim.acceptance import Acceptance, FullStep
from bdhf.optim.curvature import GGN, Curvature
from bdhf.optim.damping import Constant, Damping
from bdhf.optim.matrix import BlockCurvature, block_curvature
from bdhf.optim.optimizer import BlockHessianFree, StepInfo
from bdhf.optim.partitions import Full, Groups, Partition, PerLayer
from bdhf.optim.solvers import CG, Solver, Stop

#: Part of every run's id: raised when the same settings give other iterates than before.
ALGORITHM_VERSION = 1

__all__ = [
    "ALGORITHM_VERSION",
    "CG",
    "GGN",
    "Acceptance",
    "BlockCurvature",
    "BlockHessianFree",
    "Constant",
    "Curvature",
    "Damping",
    "Full",
    "FullStep",
    "Groups",
    "Partition",
    "PerLayer",
    "Solver",
    "StepInfo",
    "Stop",
    "block_curvature",
]
