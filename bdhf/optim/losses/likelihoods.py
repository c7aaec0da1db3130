"""The losses of torch that are likelihoods: number of terms, curvature, draws of targets.

    L = (1/M) Σ_m ℓ_m for reduction="mean", with M its number of terms; M = 1 for "sum"

`recognise` (`recognition.py`) maps a loss to one of them. A user's loss with these methods is used
like them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from bdhf.optim.errors import ModelError
from bdhf.optim.losses.hessians import Diagonal, OutputHessian, Softmax


@runtime_checkable
class Likelihood(Protocol):
    """A loss that is a sum or a weighted mean of negative log-likelihoods, one per term."""

    @property
    def is_mean(self) -> bool:
        """Whether the sum of terms is divided by `terms`."""

    def terms(self, outputs: Tensor, targets: Any) -> Tensor:
        """M, the weight of the batch in a mean, ()."""

    def hessian(self, outputs: Tensor, targets: Any) -> OutputHessian | None:
        """∇²_z Σ_m ℓ_m; None where it takes automatic differentiation."""

    def draw(self, outputs: Tensor, targets: Any, generator: torch.Generator) -> Any:
        """Targets ŷ from exp(-ℓ_m); ignored terms stay ignored. ModelError: not a likelihood."""

    def score(self, outputs: Tensor, targets: Any, drawn: Any) -> Tensor:
        """∇_z Σ_m ℓ_m at the targets `drawn`; the observed targets say which terms count."""


@dataclass(frozen=True)
class CrossEntropy:
    """`F.cross_entropy`: -Σ_c t_c log softmax(z)_c, for class indices or class probabilities."""

    weight: Tensor | None = None
    ignore_index: int = -100
    reduction: str = "mean"
    label_smoothing: float = 0.0

    @property
    def is_mean(self) -> bool:
        """Whether the reduction is the mean."""
        return self.reduction == "mean"

    def terms(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The class weights of counted labels; the number of samples for class probabilities."""
        if targets.is_floating_point():
            return outputs.new_tensor(outputs.numel() / outputs.shape[self._classes(outputs)])
        return self._of_label(outputs, targets).sum()

    def hessian(self, outputs: Tensor, targets: Tensor) -> OutputHessian:
        """Σ_c t_c times the covariance of the class."""
        dim = self._classes(outputs)
        smooth = self.label_smoothing / outputs.shape[dim]
        weight = self._weights(outputs)
        if targets.is_floating_point():
            shape = [-1 if d == dim % outputs.dim() else 1 for d in range(outputs.dim())]
            soft = (1 - self.label_smoothing) * targets + smooth
            total = (soft * weight.view(shape)).sum(dim, keepdim=True)
        else:
            counted = self._counted(targets).to(outputs.dtype)
            label = self._of_label(outputs, targets)
            total = (1 - self.label_smoothing) * label + smooth * weight.sum() * counted
            total = total.unsqueeze(dim)
        return Softmax(outputs.softmax(dim), total, dim - outputs.dim() if dim >= 0 else dim)

    def draw(self, outputs: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Labels from softmax(z)."""
        if self.weight is not None or self.label_smoothing or targets.is_floating_point():
            raise ModelError(
                "cross-entropy with class weights, label smoothing or class probabilities as "
                "targets is not a likelihood to draw labels from: use GGN, or plain labels"
            )
        p = outputs.softmax(self._classes(outputs)).movedim(self._classes(outputs), -1)
        p = p.reshape(-1, p.shape[-1]).nan_to_num(1.0)  # the update reports NaN
        drawn = torch.multinomial(p, 1, generator=generator)
        return drawn.view(targets.shape).where(self._counted(targets), targets.long())

    def score(self, outputs: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
        """Softmax minus the label; a drawn label counts even if it equals `ignore_index`."""
        dim, counted = self._classes(outputs), self._counted(targets)
        label = F.one_hot(drawn.where(counted, 0), outputs.shape[dim]).movedim(-1, dim)
        return (outputs.softmax(dim) - label) * counted.unsqueeze(dim)

    def _classes(self, outputs: Tensor) -> int:
        return 0 if outputs.dim() == 1 else 1

    def _weights(self, outputs: Tensor) -> Tensor:
        """The weight of every class, (C,)."""
        classes = outputs.shape[self._classes(outputs)]
        return outputs.new_ones(classes) if self.weight is None else self.weight.to(outputs)

    def _of_label(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Weight of every label, 0 where it is ignored, shape of the targets."""
        counted = self._counted(targets)
        weights: Tensor = self._weights(outputs)[targets.long().where(counted, 0)] * counted
        return weights

    def _counted(self, targets: Tensor) -> Tensor:
        """Which labels count; as int64, since uint8 has no -100 and indexes as a mask."""
        return targets.long() != self.ignore_index


@dataclass(frozen=True)
class SquaredError:
    """`F.mse_loss`: (z - y)² for every element, so y ~ N(z, ½)."""

    reduction: str = "mean"

    @property
    def is_mean(self) -> bool:
        """Whether the reduction is the mean."""
        return self.reduction == "mean"

    def terms(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Elements of the batch."""
        shape = torch.broadcast_shapes(outputs.shape, targets.shape)
        return outputs.new_tensor(torch.Size(shape).numel())

    def hessian(self, outputs: Tensor, targets: Tensor) -> OutputHessian | None:
        """2 for every element; None where the shapes are broadcast."""
        if outputs.shape != targets.shape:
            return None
        return Diagonal(outputs.new_tensor(2.0).expand_as(outputs))

    def draw(self, outputs: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Normal targets around the outputs, with variance ½."""
        _same_shape(outputs, targets)
        noise = torch.empty_like(outputs).normal_(generator=generator)
        return outputs + math.sqrt(0.5) * noise

    def score(self, outputs: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
        """2 (z - ŷ)."""
        return 2 * (outputs - drawn)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """`F.binary_cross_entropy_with_logits`: Bernoulli with P(1) = σ(z) for every element."""

    weight: Tensor | None = None
    reduction: str = "mean"
    pos_weight: Tensor | None = None

    @property
    def is_mean(self) -> bool:
        """Whether the reduction is the mean."""
        return self.reduction == "mean"

    def terms(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Elements of the batch."""
        return outputs.new_tensor(outputs.numel())

    def hessian(self, outputs: Tensor, targets: Tensor) -> OutputHessian:
        """σ(1 - σ), times the weights of the element."""
        p = outputs.sigmoid()
        h = p * (1 - p)
        if self.pos_weight is not None:
            h = h * (1 + (self.pos_weight.to(outputs) - 1) * targets)
        return Diagonal(h if self.weight is None else h * self.weight.to(outputs))

    def draw(self, outputs: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Zeros and ones, with P(1) = σ(z)."""
        if self.weight is not None or self.pos_weight is not None:
            raise ModelError(
                "binary cross-entropy with weights is not a likelihood to draw targets from: use "
                "GGN"
            )
        return torch.bernoulli(outputs.sigmoid().nan_to_num(0.5), generator=generator)

    def score(self, outputs: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
        """σ(z) - ŷ."""
        return outputs.sigmoid() - drawn


def _same_shape(outputs: Tensor, targets: Tensor) -> None:
    if outputs.shape != targets.shape:
        raise ModelError(
            f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)} differ in shape; "
            "targets can be drawn only in the shape of the outputs"
        )
