"""A matrix that lets somebody look before every product: a wall-clock limit, a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from bdhf.optim.products import BlockProduct


@dataclass(frozen=True)
class WithCallback:
    """The product, with `watch` called before each one, and before the factor is made."""

    product: BlockProduct
    watch: Callable[[], None] | None

    def __call__(self, v: Tensor, active: Sequence[int] | None = None) -> Tensor:
        """Look, then multiply."""
        self._look()
        return self.product(v, active)

    @property
    def factor_rows(self) -> int:
        """R, the rows of the factor."""
        return self.product.factor_rows

    def factor(self, chunk: int) -> Tensor:
        """Look, then make the factor."""
        self._look()
        return self.product.factor(chunk)

    def squared_gradients(self) -> Tensor:
        """Look, then go through the samples."""
        self._look()
        return self.product.squared_gradients()

    def _look(self) -> None:
        if self.watch is not None:
            self.watch()
