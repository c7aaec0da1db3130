"""The weight of each micro-batch in the loss of the whole batch.

L = Σ_i w_i L_i,    w_i = M_i / Σ_j M_j for a mean loss with M_i terms, 1 for a sum
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from bdhf.optim.errors import ModelError
from bdhf.optim.losses.likelihoods import Likelihood
from bdhf.optim.losses.own import loss_name
from bdhf.optim.losses.recognition import recognise

LossFn = Callable[[Any, Any], Tensor]


def likelihood_of(loss_fn: LossFn, purpose: str) -> Likelihood:
    """The likelihood of a loss. Raises ModelError for an unknown loss.

    `purpose` is what needs it, for the error.
    """
    likelihood = recognise(loss_fn)
    if likelihood is None:
        raise ModelError(
            f"{purpose} needs the terms of the loss, and {loss_name(loss_fn)} is not one of "
            "torch's cross_entropy, mse_loss, binary_cross_entropy_with_logits, nll_loss and "
            "kl_div: pass the function itself, its module (nn.CrossEntropyLoss(...)) without hooks "
            "or functools.partial of it, or give your loss the methods of bdhf.optim.Likelihood"
        )
    return likelihood


def weights(loss_fn: LossFn, pairs: Sequence[tuple[Tensor, Any]]) -> list[float]:
    """The weight of each micro-batch (outputs, targets): by its loss terms, not by its rows.

    Raises ModelError for several micro-batches of a loss whose terms are not known.
    """
    if len(pairs) == 1:
        return [1.0]
    likelihood = likelihood_of(loss_fn, "a list of micro-batches")
    if not likelihood.is_mean:
        return [1.0] * len(pairs)
    terms = [float(likelihood.terms(outputs.detach(), targets)) for outputs, targets in pairs]
    return [count / sum(terms) if sum(terms) else float("nan") for count in terms]


def is_mean(loss_fn: LossFn) -> bool:
    """Whether the loss is a mean over samples; an unknown loss is assumed to be."""
    likelihood = recognise(loss_fn)
    return likelihood is None or likelihood.is_mean
