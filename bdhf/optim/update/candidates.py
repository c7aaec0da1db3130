"""Candidate steps from θ: the loss of each, and what the quadratic model predicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.forward.batches import Batches
from bdhf.optim.solvers import Iterate
from bdhf.optim.update.expansion import Expansion
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class CandidateSteps:
    """The steps t · lr · d_i of one update; `loss_of` is the loss where `move` has moved to.

    Vectors are (P,) in block order, coefficients (rows,).
    """

    blocks: Blocks
    iterates: Sequence[Iterate]
    expansion: Expansion
    lr: Tensor
    damping: Tensor  # of the solver, without the penalty of the loss
    move: Callable[[Tensor], None]
    loss_of: Callable[[Batches], float]

    @property
    def last(self) -> int:
        """Index of the solver's answer."""
        return len(self.iterates) - 1

    @property
    def start_loss(self) -> float:
        """The loss of the gradient batch at θ."""
        return self.expansion.loss

    def loss(self, index: int, factor: float) -> float:
        """The loss of the gradient batch at θ + factor · lr · d_index."""
        return self.loss_at(self.step(index, factor * self.lr), self.expansion.batches)

    def slope(self, index: int) -> float:
        """gᵀ(lr · d_index)."""
        return float(self.expansion.gradient @ self.step(index, self.lr))

    def step(self, index: int, scale: Tensor) -> Tensor:
        """scale_b · d_b of an iterate, (P,)."""
        x = self.iterates[index].x
        return self.blocks.add_scaled_(torch.zeros_like(x), scale, x)

    def loss_at(self, step: Tensor, batches: Batches) -> float:
        """Move to θ + step, and return the loss there."""
        self.move(self.blocks.scatter(step))
        return self.loss_of(batches)

    def predicted(self, index: int, scale: Tensor) -> Tensor:
        """Change predicted by each block's model at s = scale_b · d_b: gᵀs + ½ sᵀGs; (rows,).

        Without damping: φ gives dᵀGd, at the cost of no product.
        """
        iterate = self.iterates[index]
        slope = self.blocks.dot(self.expansion.gradient, iterate.x)
        norm = self.blocks.dot(iterate.x, iterate.x)
        curvature = 2 * (iterate.model - slope) - self.damping * norm
        return scale * slope + 0.5 * scale**2 * curvature

    def reduction_ratio(self, index: int, scale: Tensor) -> float:
        """Actual ÷ predicted change of the curvature batch's loss, at s = scale_b · d_b.

        NaN unless the model predicts that the loss falls. Leaves the parameters at θ + s.
        """
        after = self.loss_at(self.step(index, scale), self.expansion.curvature_batches)
        predicted = float(self.predicted(index, scale).sum())
        change = after - self.expansion.curvature_loss
        return change / predicted if predicted < 0 else math.nan
