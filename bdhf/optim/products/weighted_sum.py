"""A weighted sum of matrices of one batch at one θ, each linearised on its own: Σ_k a_k M_k."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.forward.batches import Batch
from bdhf.optim.products.linearisation import Linearisation
from bdhf.optim.vectors.blocks import Blocks

#: The weight a_k and the linearised M_k of every term.
WeightedTerms = tuple[tuple[float, Linearisation], ...]


@dataclass(frozen=True)
class WeightedSum:
    """The products Σ_k a_k M_k v of terms with a common loss, gradient and batch.

    The sum is of no form Jᵀ H J, although terms may be; each term keeps a graph.
    """

    terms: WeightedTerms
    hessian = None  # each term has its own

    @property
    def _first(self) -> Linearisation:
        return self.terms[0][1]

    @property
    def batch(self) -> Batch:
        """The (inputs, targets) that were linearised."""
        return self._first.batch

    @property
    def shapes(self) -> Hashable:
        """The key of costs and programs of this batch."""
        return self._first.shapes

    @property
    def method(self) -> str:
        """The method of the terms."""
        return self._first.method

    @property
    def why(self) -> str:
        """How the products of every term are computed, and why."""
        return " + ".join(f"{weight:g} × ({term.why})" for weight, term in self.terms)

    @property
    def outputs(self) -> Tensor:
        """The outputs of the model, (N, ...)."""
        return self._first.outputs

    @property
    def loss(self) -> Tensor:
        """The loss of the batch, ()."""
        return self._first.loss

    @property
    def gradient(self) -> Tensor:
        """Its gradient, (P,) in the order of the parameters."""
        return self._first.gradient

    def product(self, blocks: Blocks, v: Tensor, active: Sequence[int]) -> Tensor:
        """Σ_k a_k (M_k)_bb v_b for every active block b, zero elsewhere; block order."""
        total = torch.zeros_like(v)
        for weight, term in self.terms:
            total.add_(term.product(blocks, v, active), alpha=weight)
        return total

    def together(self, blocks: Blocks) -> bool:
        """Whether one sweep of every term takes all of these blocks."""
        return all(term.together(blocks) for _, term in self.terms)

    @property
    def factor_rows(self) -> int:
        """The refusal of a term that has no factor (ValueError)."""
        return sum(term.factor_rows for _, term in self.terms)

    def factor(self, chunk: int, positions: Tensor | None = None) -> Tensor:
        """The roots of the terms, (R, P). Raises ValueError where a term has none."""
        made = [weight**0.5 * term.factor(chunk, positions) for weight, term in self.terms]
        return torch.cat(made)

    def squared_gradients(self) -> Tensor:
        """Σ_n (∂L_n/∂θ)² over the samples, (P,) in the order of the parameters."""
        return self._first.squared_gradients()


def terms_of(part: Linearisation) -> WeightedTerms:
    """The terms of a weighted sum; any other linearisation is its only term."""
    return part.terms if isinstance(part, WeightedSum) else ((1.0, part),)
