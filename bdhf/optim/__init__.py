"""The method: curvature × partition × solver × damping × acceptance. Usable on its own."""

from bdhf.errors import BdhfError
from bdhf.optim.curvature import GGN, Curvature, EmpiricalFisher, Fisher, Hessian, Mixed
from bdhf.optim.errors import CurvatureError, ModelError, ModelTypeError
from bdhf.optim.estimate import estimate, explain, factor_rows
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
    EKFAC,
    KFAC,
    Cholesky,
    Direction,
    Forcing,
    Martens,
    MartensProgress,
    NoPreconditioner,
    Nystrom,
    Preconditioner,
    Recycled,
    RelativeResidual,
    SaddleFree,
    SampleSpace,
    Solver,
    Stop,
    StopRule,
)
from bdhf.optim.torch_support.flops import UncountedWarning
from bdhf.optim.update.acceptance import Acceptance, Backtracking, FullStep
from bdhf.optim.update.damping import Constant, Damping, LevenbergMarquardt
from bdhf.optim.update.info import StepInfo
from bdhf.optim.update.momentum import Momentum, QuadraticMomentum
from bdhf.optim.update.regularization import L2
from bdhf.optim.update.structural import Structural

#: Part of every run's id: raised when the same settings lead to different iterates.
ALGORITHM_VERSION = 8

__all__ = [
    "ALGORITHM_VERSION",
    "CG",
    "EKFAC",
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
    "Direction",
    "EmpiricalFisher",
    "Fisher",
    "Forcing",
    "Full",
    "FullStep",
    "Groups",
    "Hessian",
    "LevenbergMarquardt",
    "Likelihood",
    "Martens",
    "MartensProgress",
    "Mixed",
    "ModelError",
    "ModelTypeError",
    "Momentum",
    "NoPreconditioner",
    "Nystrom",
    "Partition",
    "PerLayer",
    "PerNeuron",
    "Preconditioner",
    "QuadraticMomentum",
    "Random",
    "Recycled",
    "RelativeResidual",
    "SaddleFree",
    "SampleSpace",
    "Solver",
    "StepInfo",
    "Stop",
    "StopRule",
    "Structural",
    "UncountedWarning",
    "block_curvature",
    "estimate",
    "explain",
    "factor_rows",
]
