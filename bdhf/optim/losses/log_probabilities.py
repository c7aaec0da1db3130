"""Losses of log-probabilities: linear in the outputs z, but with the curvature of a likelihood.

    -t_y z_y,   Σ_c t_c (log t_c - z_c)      with   log Σ_c exp z_c = 0 whatever the parameters

As a function of the outputs each has a Hessian of 0, and a GGN of 0 is useless. Where the outputs
are normalised, as by a LogSoftmax, the loss is the cross-entropy of the same outputs,
-Σ_c t_c log softmax(z)_c, up to a constant, and its Hessian t (diag p - ppᵀ), p = exp z, is used.
The Jacobian of normalised outputs maps the gradients of both to the same vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bdhf.optim.errors import ModelError
from bdhf.optim.losses.hessians import OutputHessian, Softmax
from bdhf.optim.losses.likelihoods import CrossEntropy

#: Rounding error of log Σ exp z = 0 for normalised outputs, by their precision.
_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
_COARSE = 5e-2  # of any other precision


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """`F.nll_loss`: -z_y for class indices y, with outputs z that are log-probabilities."""

    weight: Tensor | None = None
    ignore_index: int = -100
    reduction: str = "mean"

    @property
    def is_mean(self) -> bool:
        """Whether the reduction is the mean."""
        return self.reduction == "mean"

    def terms(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The class weights of counted labels."""
        return self._entropy.terms(outputs, targets)

    def hessian(self, outputs: Tensor, targets: Tensor) -> OutputHessian | None:
        """That of cross-entropy; None where the outputs are not normalised."""
        if not self._normalised(outputs, targets):
            return None
        return self._entropy.hessian(outputs, targets)

    def draw(self, outputs: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Labels from exp(z)."""
        finite = bool(outputs.isfinite().all())  # the update reports NaN
        if finite and not self._normalised(outputs, targets):
            raise ModelError(
                "nll_loss is a likelihood for log-probabilities only, and log Σ exp z of the "
                "outputs is not 0: end the model with a LogSoftmax, or use cross_entropy"
            )
        return self._entropy.draw(outputs, targets, generator)

    def score(self, outputs: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
        """That of cross-entropy, exp(z) minus the label: the same in the parameters."""
        return self._entropy.score(outputs, targets, drawn)

    @property
    def _entropy(self) -> CrossEntropy:
        return CrossEntropy(self.weight, self.ignore_index, self.reduction)

    def _normalised(self, outputs: Tensor, targets: Tensor) -> bool:
        dim = 0 if outputs.dim() == 1 else 1
        excess = outputs.logsumexp(dim).abs()
        return bool(((excess <= _tolerance(outputs)) | (targets.long() == self.ignore_index)).all())


@dataclass(frozen=True)
class KullbackLeibler:
    """`F.kl_div`: Σ_c t_c (log t_c - z_c), for outputs z that are log-probabilities."""

    REDUCTIONS: ClassVar = ("mean", "batchmean", "sum")

    reduction: str = "mean"
    log_target: bool = False

    @property
    def is_mean(self) -> bool:
        """Whether the reduction is a mean, of elements or of samples."""
        return self.reduction != "sum"

    def terms(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Elements of the batch; samples for "batchmean"."""
        if self.reduction == "batchmean":
            return outputs.new_tensor(outputs.shape[0] if outputs.dim() else 1)
        shape = torch.broadcast_shapes(outputs.shape, targets.shape)
        return outputs.new_tensor(torch.Size(shape).numel())

    def hessian(self, outputs: Tensor, targets: Tensor) -> OutputHessian | None:
        """Σ_c t_c times the covariance of the class; None where no dimension is normalised."""
        if outputs.shape != targets.shape or not outputs.dim():
            return None
        for dim in {min(1, outputs.dim() - 1), outputs.dim() - 1}:
            if bool((outputs.logsumexp(dim).abs() <= _tolerance(outputs)).all()):
                t = (targets.exp() if self.log_target else targets).to(outputs.dtype)
                total = t.sum(dim, keepdim=True)
                return Softmax(outputs.softmax(dim), total, dim - outputs.dim())
        return None

    def draw(self, outputs: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Refuse: the targets are distributions."""
        raise ModelError(
            "kl_div has class probabilities as targets, and is not a likelihood to draw labels "
            "from: use GGN, or plain labels with nll_loss"
        )

    def score(self, outputs: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
        """-t, for distributions t in place of the observed ones."""
        return -(drawn.exp() if self.log_target else drawn)


def _tolerance(outputs: Tensor) -> float:
    return _TOLERANCES.get(outputs.dtype, _COARSE)
