"""The method: curvature × partition × solver × damping × acceptance. Usable on its own."""

from bdhf.errors import BdhfError
from bdhf.optim.curvature import GGN, Curvature, EmpiricalFisher, Fisher, Hessian
from bdhf.optim.errors import CurvatureError, ModelError, ModelTypeError
from bdhf.optim.estimate import estimate, factor_rows
from bdhf.optim.forward.buffers import BufferWarning
from bdhf.optim.inspection.check import Check
from bdhf.optim.inspection.flatness import CurvatureWarning
from bdhf.optim.inspection.matrix import BlockCurvature, block_curvature
from bdhf.optim.losses import Likelihood
from bdhf.optim.optimizer import BlockHessianFree
from bdhf.optim.partitions import Blend, Full, Groups, Partition, PerLayer, PerNeuron, Random
from bdhf.optim.products.cost import CostWarning
from bdhf.optim.solvers import (
    CG,
    KFAC,
    Cholesky,
    Martens,
    NoPreconditioner,
    Nystrom,
    Preconditioner,
    Recycled,
    SampleSpace,
    Solver,
    Stop,
)
from bdhf.optim.torch_support.flops import UncountedWarning
from bdhf.optim.update.acceptance import Acceptance, Backtracking, FullStep
from bdhf.optim.update.damping import Constant, Damping, LevenbergMarquardt
from bdhf.optim.update.info import StepInfo
from bdhf.optim.update.regularization import L2

#: Part of every run's id: raised when the same settings lead to different iterates.
ALGORITHM_VERSION = 8

__all__ = [
    "ALGORITHM_VERSION",
    "CG",
    "GGN",
    "KFAC",
    "L2",
    "Acceptance",
    "Backtracking",
    "BdhfError",
    "Blend",
    "BlockCurvature",
    "BlockHessianFree",
    "BufferWarning",
    "Check",
    "Cholesky",
    "Constant",
    "CostWarning",
    "Curvature",
    "CurvatureError",
    "CurvatureWarning",
    "Damping",
    "EmpiricalFisher",
    "Fisher",
    "Full",
    "FullStep",
    "Groups",
    "Hessian",
    "LevenbergMarquardt",
    "Likelihood",
    "Martens",
    "ModelError",
    "ModelTypeError",
    "NoPreconditioner",
    "Nystrom",
    "Partition",
    "PerLayer",
    "PerNeuron",
    "Preconditioner",
    "Random",
    "Recycled",
    "SampleSpace",
    "Solver",
    "StepInfo",
    "Stop",
    "UncountedWarning",
    "block_curvature",
    "estimate",
    "factor_rows",
]
