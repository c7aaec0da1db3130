"""Which likelihood a loss is: torch's own functions, modules, and `functools.partial` of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from torch import nn
from torch.nn import functional as F

from bdhf.optim.losses.likelihoods import (
    BinaryCrossEntropy,
    CrossEntropy,
    Likelihood,
    SquaredError,
)
from bdhf.optim.losses.log_probabilities import KullbackLeibler, NegativeLogLikelihood

Build = Callable[..., Likelihood]

#: torch's function, torch's module -> the likelihood; both take the same arguments by name.
KNOWN: Mapping[Callable[..., Any], Build] = {
    F.cross_entropy: CrossEntropy,
    F.mse_loss: SquaredError,
    F.binary_cross_entropy_with_logits: BinaryCrossEntropy,
    F.nll_loss: NegativeLogLikelihood,
    F.kl_div: KullbackLeibler,
}
LOSS_MODULES: Mapping[type[nn.Module], Build] = {
    nn.CrossEntropyLoss: CrossEntropy,
    nn.MSELoss: SquaredError,
    nn.BCEWithLogitsLoss: BinaryCrossEntropy,
    nn.NLLLoss: NegativeLogLikelihood,
    nn.KLDivLoss: KullbackLeibler,
}


def recognise(loss_fn: Callable[..., Any]) -> Likelihood | None:
    """Map a loss to its likelihood; None for an unknown loss, or one without a scalar reduction.

    >>> recognise(functools.partial(F.cross_entropy, ignore_index=0))
    CrossEntropy(weight=None, ignore_index=0, reduction='mean', label_smoothing=0.0)
    >>> recognise(nn.MSELoss(reduction="sum"))
    SquaredError(reduction='sum')
    >>> recognise(lambda outputs, targets: outputs.sum())
    """
    if isinstance(loss_fn, Likelihood):
        return loss_fn
    if type(loss_fn) in LOSS_MODULES:
        if _is_changed(loss_fn):
            return None
        build = LOSS_MODULES[type(loss_fn)]  # type: ignore[index]  # it is a module: see the line above
        return _reducing(build(**{name: getattr(loss_fn, name) for name in _arguments(build)}))
    keywords = loss_fn.keywords if isinstance(loss_fn, functools.partial) else {}
    bare = loss_fn.func if isinstance(loss_fn, functools.partial) else loss_fn
    builds = [build for function, build in KNOWN.items() if function is bare]
    positional = isinstance(loss_fn, functools.partial) and loss_fn.args
    if not builds or positional or not set(keywords) <= set(_arguments(builds[0])):
        return None
    return _reducing(builds[0](**keywords))


def _is_changed(loss_fn: Any) -> bool:
    """Whether a module of torch computes something else, by hooks or its own forward."""
    hooks = loss_fn._forward_pre_hooks or loss_fn._forward_hooks
    return bool(hooks) or "forward" in vars(loss_fn)


def _arguments(build: Build) -> list[str]:
    return [field.name for field in fields(build)]  # type: ignore[arg-type]  # all are dataclasses


def _reducing(likelihood: Any) -> Likelihood | None:
    reductions = getattr(likelihood, "REDUCTIONS", ("mean", "sum"))
    return likelihood if likelihood.reduction in reductions else None
