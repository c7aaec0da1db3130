"""bdhf: benchmarks and ablations of block-diagonal Hessian-free optimization.

The public names are resolved when they are first used (PEP 562), so that statistics, reports and
`bdhf --help` start without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bdhf.optim import (
        CG,
        GGN,
        BlockCurvature,
        BlockHessianFree,
        Constant,
        Full,
        FullStep,
        Groups,
        PerLayer,
        StepInfo,
        block_curvature,
    )
    from bdhf.records import load

__version__ = "0.1.0"

__all__ = [
    "CG",
    "GGN",
    "BlockCurvature",
    "BlockHessianFree",
    "Constant",
    "Full",
    "FullStep",
    "Groups",
    "PerLayer",
    "StepInfo",
    "block_curvature",
    "load",
]

_HOME = {name: "bdhf.records" if name == "load" else "bdhf.optim" for name in __all__}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        known = ", ".join(__all__)
        raise AttributeError(f"module 'bdhf' has no attribute {name!r}; known: {known}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
