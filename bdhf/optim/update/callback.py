"""A matrix with a callback before every product: for a wall-clock limit or a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor

from bdhf.optim.products import BlockProduct
from bdhf.optim.products.site_samples import SiteSamples


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

    def factor(self, chunk: int, positions: Tensor | None = None) -> Tensor:
        """Call `watch`, then compute the factor, or some columns of it."""
        self._look()
        return self.product.factor(chunk, positions)

    def squared_gradients(self) -> Tensor:
        """Call `watch`, then compute squared gradients."""
        self._look()
        return self.product.squared_gradients()

    def squared_gradients_by_site(self) -> Tensor:
        """Call `watch`, then compute squared gradients."""
        self._look()
        return self.product.squared_gradients_by_site()

    def site_samples(self) -> SiteSamples:
        """Call `watch`, then record the sites."""
        self._look()
        return self.product.site_samples()

    def counting(self, key: Hashable) -> AbstractContextManager[None]:
        """Charge the body to the update."""
        return self.product.counting(key)

    @property
    def seed(self) -> int:
        """The seed of what a preconditioner draws."""
        return self.product.seed

    def _look(self) -> None:
        if self.watch is not None:
            self.watch()
