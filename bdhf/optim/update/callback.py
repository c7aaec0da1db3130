"""A matrix with a callback before every product: for a wall-clock limit or a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from bdhf.optim.products import BlockProduct


@dataclass(frozen=True)
class WithCallback:
    """The product; `watch` is called before each one, and before the factor is computed."""

    product: BlockProduct
    watch: Callable[[], None] | None

    def __call__(self, v: Tensor, active: Sequence[int] | None = None) -> Tensor:
        """Call `watch`, then multiply."""
        self._look()
        return self.product(v, active)

    @property
    def factor_rows(self) -> int:
        """R, the rows of the factor."""
        return self.product.factor_rows

    def factor(self, chunk: int) -> Tensor:
        """Call `watch`, then compute the factor."""
        self._look()
        return self.product.factor(chunk)

    def squared_gradients(self) -> Tensor:
        """Call `watch`, then compute squared gradients."""
        self._look()
        return self.product.squared_gradients()

    def _look(self) -> None:
        if self.watch is not None:
            self.watch()
