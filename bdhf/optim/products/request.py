"""The input of a method of computing products: which matrix, what batch, how, how often."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from bdhf.optim.curvature import Curvature
from bdhf.optim.forward.batches import Batch
from bdhf.optim.forward.objective import Objective
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.vectors.blocks import Blocks

#: Expected products per linearisation, by default.
EXPECTED_PRODUCTS = 30

#: Bytes that a cache may take, by default.
MAX_BYTES = 2**30


@dataclass(frozen=True)
class Settings:
    """How products are computed, whichever matrix they are with.

    `method` is "auto" or a key of `METHODS`; `max_bytes` bounds what `layer_io` caches; `dtype` is
    the precision of matrix products (None: that of the model); `compile` compiles traced programs
    with torch.compile. Raises ValueError for settings out of range.
    """

    method: str = "auto"
    max_bytes: int = MAX_BYTES
    dtype: torch.dtype | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1; got {self.max_bytes}")
        if self.dtype not in (None, torch.bfloat16):
            raise ValueError(
                f"product_dtype must be torch.bfloat16, or None for the precision of the model; "
                f"got {self.dtype}"
            )


@dataclass
class Workspace:
    """What outlives an update: decisions and traced programs, keyed by what they depend on."""

    kept: dict[Hashable, Any] = field(default_factory=dict)

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        """Copies and pickles are empty: what is kept belongs to the model, not to its copy."""
        return Workspace, ()


@dataclass(frozen=True)
class Request:
    """One micro-batch to linearise, and everything that determines how."""

    objective: Objective
    batch: Batch
    curvature: Curvature
    blocks: Blocks
    generator: torch.Generator
    flops: Flops
    settings: Settings
    workspace: Workspace
    products: int = EXPECTED_PRODUCTS  # the expected number with this linearisation

    @cached_property
    def shapes(self) -> Hashable:
        """What costs and programs depend on: the shapes of the batch, and flags of the model."""
        return self.objective.signature(self.batch)
