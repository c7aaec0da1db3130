"""The state of a solve in lockstep: which rows are active, their counts, and why they stopped.

Every number is a vector with one entry per row (block), on the device of the vectors; only `look`
and `solution` wait for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bdhf.optim.solvers.system import Iterate, Solution, Stop

#: Iterations between two reads of which rows are done, where a read waits for the device.
CHECK_EVERY = 10

_STOPS = tuple(Stop)
_CODE = {stop: code for code, stop in enumerate(_STOPS)}


class Rows:
    """All rows of a solve, at first active.

    `eager`: reading a flag costs nothing, so work without rows can be skipped.
    """

    def __init__(self, like: Tensor, eager: bool) -> None:
        """`like` has one entry per row."""
        self._eager = eager
        self.active = torch.ones_like(like, dtype=torch.bool)
        self.listed: list[int] | None = None  # the active rows at the last `look`; None: all
        self._code = torch.full_like(like, _CODE[Stop.MAX_ITERS], dtype=torch.long)
        self.iterations = torch.zeros_like(self._code)
        self.products = torch.zeros_like(self._code)

    def look(self) -> bool:
        """Read which rows are active; whether there is any. Waits for the device."""
        flags = self.active.tolist()
        self.listed = None if all(flags) else [row for row, on in enumerate(flags) if on]
        return any(flags)

    def any(self, mask: Tensor) -> bool:
        """Whether to work on the rows of `mask`; always where reading a flag is not free."""
        return not self._eager or bool(mask.any())

    def rest(self, mask: Tensor, stop: Stop) -> None:
        """Stop the active rows in `mask`: their x does not change again."""
        mask = mask & self.active
        self.active = self.active & ~mask
        self._code = self._code.masked_fill(mask, _CODE[stop])

    def report(self, mask: Tensor, stop: Stop) -> None:
        """Give another reason for the rows in `mask`, but for those that are not finite."""
        mask = mask & (self._code != _CODE[Stop.NONFINITE])
        self._code = self._code.masked_fill(mask, _CODE[stop])

    def solution(self, answer: Iterate, kept: Sequence[tuple[int, Iterate]]) -> Solution:
        """Counts and reasons of every row, with the iterates; the last one is the answer."""
        counts = torch.stack([self.iterations, self.products, self._code])
        iterations, products, codes = counts.tolist()
        iterates = [iterate for iteration, iterate in kept if iteration < max(iterations)]
        return Solution(
            x=answer.x,
            model=answer.model,
            iterations=tuple(iterations),
            products=tuple(products),
            stop=tuple(_STOPS[code] for code in codes),
            iterates=(*iterates, answer),
        )


def saved_iterations(max_iters: int) -> set[int]:
    """Iterations before the last at which Martens (2010, §4.6) keeps an iterate: ⌈5 · 1.3^j⌉."""
    last = math.ceil(math.log(max(max_iters, 5) / 5, 1.3))
    return {math.ceil(5 * 1.3**j) for j in range(last + 1)} & set(range(max_iters))
