"""Fisher matrices: outer products of scores, with targets drawn by the model or observed.

F = (1/MK) Σ_{n,k} J_nᵀ s_nk s_nkᵀ J_n,   s_nk = Σ_{m∈n} ∇_z ℓ_m(z, ŷ_k)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.curvature.output import OutputLoss, value_and_gradient
from bdhf.optim.errors import ModelError
from bdhf.optim.losses import Likelihood, likelihood_of
from bdhf.optim.losses.hessians import Outer
from bdhf.optim.losses.likelihoods import CrossEntropy
from bdhf.optim.losses.log_probabilities import KullbackLeibler, NegativeLogLikelihood
from bdhf.optim.losses.weights import LossFn

#: Likelihoods whose unbatched outputs are the classes of one sample.
_OVER_CLASSES = (CrossEntropy, NegativeLogLikelihood, KullbackLeibler)


@dataclass(frozen=True)
class Fisher:
    """The Fisher matrix by Monte Carlo: K draws ŷ ~ exp(-ℓ) a sample (Amari 1998; Martens 2020).

    Its expectation is the GGN for cross-entropy, squared error and binary cross-entropy with
    logits, so K = `samples` trades noise against the rank of H_n. The targets are drawn once per
    linearisation, from the optimizer's generator: all products of an update are with one matrix.
    Dimension 0 of the outputs counts the samples. Raises ValueError for fewer than one
    draw, and at the first product for a loss that is no likelihood.
    """

    samples: int = 1

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"Fisher samples must be at least 1; got {self.samples}")

    def expand_loss(
        self, loss_fn: LossFn, outputs: Tensor, targets: Any, generator: torch.Generator
    ) -> OutputLoss:
        """The loss at the outputs, with the H between Jᵀ and J."""
        likelihood = likelihood_of(loss_fn, "Fisher")
        z = outputs.detach().requires_grad_()
        loss, gradient, direct = value_and_gradient(loss_fn, z, targets)
        scores = []
        for _ in range(self.samples):
            drawn = likelihood.draw(z.detach(), targets, generator)
            scores.append(likelihood.score(z.detach(), targets, drawn).detach())
        outer = _outer(torch.stack(scores), likelihood, z, targets)
        return OutputLoss(loss, gradient, outer, direct)


@dataclass(frozen=True)
class EmpiricalFisher:
    """Outer products of the gradients of the observed targets: NOT the Fisher matrix.

    Its scores are those of the data, so it vanishes where the data are fitted and is not a
    curvature (Kunstner, Hennig & Balles 2019); it is meant as a control. Dimension 0 of the outputs
    counts the samples.
    """

    def expand_loss(
        self, loss_fn: LossFn, outputs: Tensor, targets: Any, generator: torch.Generator
    ) -> OutputLoss:
        """The loss at the outputs, with the H between Jᵀ and J."""
        likelihood = likelihood_of(loss_fn, "EmpiricalFisher")
        z = outputs.detach().requires_grad_()
        loss, gradient, direct = value_and_gradient(loss_fn, z, targets)
        terms = likelihood.terms(z.detach(), targets) if likelihood.is_mean else 1.0
        outer = _outer(terms * gradient[None], likelihood, z, targets)
        return OutputLoss(loss, gradient, outer, direct)


def _outer(scores: Tensor, likelihood: Likelihood, z: Tensor, targets: Any) -> Outer:
    """(1/MK) Σ s sᵀ, from scores (K, *shape of z). Raises ModelError for unbatched outputs."""
    if isinstance(likelihood, _OVER_CLASSES) and z.dim() == 1:
        raise ModelError(
            f"outputs of shape {tuple(z.shape)} are the classes of one sample; a Fisher matrix "
            "counts samples in dimension 0: keep the batch dimension, (1, classes)"
        )
    scale = 1.0 / len(scores)
    if likelihood.is_mean:
        return Outer((scale / likelihood.terms(z.detach(), targets)).sqrt() * scores)
    return Outer(scale**0.5 * scores)
