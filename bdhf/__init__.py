"""bdhf: benchmarks and ablations of block-diagonal Hessian-free optimization.

The public names are resolved when they are first used (PEP 562), so that statistics, reports and
`bdhf --help` start without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bdhf import figures, recipes
    from bdhf.errors import BdhfError
    from bdhf.optim import (
        CG,
        EKFAC,
        GGN,
        KFAC,
        L2,
        Backtracking,
        Blend,
        BlockCurvature,
        BlockHessianFree,
        Cholesky,
        Constant,
        Direction,
        EmpiricalFisher,
        Fisher,
        Forcing,
        Full,
        FullStep,
        Groups,
        Hessian,
        LevenbergMarquardt,
        Martens,
        MartensProgress,
        Mixed,
        Nystrom,
        PerLayer,
        PerNeuron,
        QuadraticMomentum,
        Random,
        Recycled,
        RelativeResidual,
        SaddleFree,
        SampleSpace,
        StepInfo,
        Structural,
        block_curvature,
    )
    from bdhf.records import load

__version__ = "0.1.0"

__all__ = [
    "CG",
    "EKFAC",
    "GGN",
    "KFAC",
    "L2",
    "Backtracking",
    "BdhfError",
    "Blend",
    "BlockCurvature",
    "BlockHessianFree",
    "Cholesky",
    "Constant",
    "Direction",
    "EmpiricalFisher",
    "Fisher",
    "Forcing",
    "Full",
    "FullStep",
    "Groups",
    "Hessian",
    "LevenbergMarquardt",
    "Martens",
    "MartensProgress",
    "Mixed",
    "Nystrom",
    "PerLayer",
    "PerNeuron",
    "QuadraticMomentum",
    "Random",
    "Recycled",
    "RelativeResidual",
    "SaddleFree",
    "SampleSpace",
    "StepInfo",
    "Structural",
    "block_curvature",
    "figures",
    "load",
    "recipes",
]

#: The module of each public name outside `bdhf.optim`; "" for a name that is itself a module.
_ELSEWHERE = {
    "BdhfError": "bdhf.errors", "figures": "", "load": "bdhf.records", "recipes": "",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        names = ", ".join(__all__)
        raise AttributeError(f"module 'bdhf' has no attribute {name!r}; known: {names}")
    module = _ELSEWHERE.get(name, "bdhf.optim")
    return getattr(import_module(module), name) if module else import_module(f"bdhf.{name}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
