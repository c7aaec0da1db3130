"""One block that holds every parameter: ordinary Hessian-free optimization."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.vectors.layout import Layout


@dataclass(frozen=True)
class Full:
    """One block of all P parameters: full Hessian-free (Martens 2010).

    >>> from bdhf.optim.vectors.layout import layout_of
    >>> [tuple(rows.shape) for rows in Full()(layout_of(torch.nn.Linear(3, 2)))]
    [(1, 8)]
    """

    def __call__(self, layout: Layout) -> list[Tensor]:
        """Return one block matrix (1, P) of flat positions."""
        return [torch.arange(layout.size)[None]]
