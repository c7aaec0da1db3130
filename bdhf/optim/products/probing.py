"""Random vectors for ways to the same product, which must agree on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def probe(tensors: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
    """A fixed random tensor of the shape of every one, for ways that must agree.

    Drawn on the CPU, so that every device is asked the same.
    """
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=draws).to(p) for p in tensors]
