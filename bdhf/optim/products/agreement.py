"""Whether two computations of the same vector agree, on random vectors and up to rounding.

J v is compared with reverse mode by first derivatives only: ⟨w, J v⟩ = ⟨Jᵀw, v⟩ for random v and w.
For normal w the difference is normal, and its deviation is the norm of the error of J v, so a few
draws estimate its size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from bdhf.optim.products.request import Request
from bdhf.optim.products.vjp import vjp
from bdhf.optim.vectors.layout import split_like

#: Relative differences that rounding may explain, by precision.
_TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-3}
LOOSE = 0.1  # for lower precisions

#: Draws of w: the chance that all of them miss an error of ten times the tolerance is 3e-6.
_DRAWS = 5


def random_tangents(tensors: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
    """One fixed random tensor of the shape of each, for computations that must agree.

    Drawn on the CPU, so that they are the same for every device.
    """
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=draws).to(p) for p in tensors]


def tolerance_of(z: Tensor, request: Request) -> float:
    """Relative difference of two computations of a vector that rounding may explain."""
    return _TOLERANCES.get(request.settings.dtype or z.dtype, LOOSE)


@torch.no_grad()
def adjoint_error(
    push: Callable[[Mapping[int, Tensor]], Tensor | None],
    z: Tensor,
    request: Request,
    draws: int = _DRAWS,
    by_block: bool = True,
) -> float | None:
    """The largest relative error of J v: for all parameters, and for the tensors of every block.

    `draws` is the number of w; `by_block=False` leaves the blocks out. None where something is not
    finite.
    """
    parameters = request.objective.parameters
    v = random_tangents(parameters)
    together = tuple(range(len(parameters)))
    alone = [block.slots for block in request.blocks.rows] if by_block else []
    sets = list(dict.fromkeys([together, *alone]))
    pushed = [push({i: v[i] for i in slots}) for slots in sets]
    squares = torch.zeros(len(sets), dtype=torch.float64)
    for draw in range(draws):
        (w,) = random_tangents([z], seed=1 + draw)
        columns = split_like(vjp(z, parameters, w), parameters)
        inner = [_dot(column, part) for column, part in zip(columns, v, strict=True)]
        for at, (slots, jv) in enumerate(zip(sets, pushed, strict=True)):
            there = 0.0 if jv is None else _dot(w, jv)
            squares[at] += (there - sum(inner[i] for i in slots)) ** 2 / draws
    norms = torch.tensor([0.0 if jv is None else float(jv.double().norm()) for jv in pushed])
    if not (squares.isfinite().all() and norms.isfinite().all()):
        return None
    errors = squares.sqrt() / norms.double()
    return float(errors.nan_to_num(0.0, posinf=torch.inf).max())  # 0 ÷ 0 is no error


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum())
