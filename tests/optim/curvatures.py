"""The curvatures of the contract tests, each with the dense matrix that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import bdhf
from bdhf.experiments import build
from bdhf.optim import Curvature
from bdhf.optim.losses import recognise
from tests.cases import Case
from tests.oracles import dense_ggn, dense_hessian, dense_scores

SEED = 3  # of what a curvature draws


def terms(case: Case) -> int:
    """M by counting: labels that count, or elements; 0 for a sum."""
    y = case.batch[1]
    if getattr(case.loss_fn, "reduction", "mean") == "sum":
        return 0
    if y.is_floating_point():
        return y.numel()
    loss = case.loss_fn
    ignored = loss.keywords["ignore_index"] if isinstance(loss, partial) else -100
    weight = getattr(loss, "weight", None)
    counted = y[y != ignored]
    return len(counted) if weight is None else float(weight[counted].sum())


def _dense_fisher(case: Case, samples: int) -> Tensor:
    """The same draws as the curvature's, put together by the definition."""
    generator = torch.Generator().manual_seed(SEED)
    likelihood, z = recognise(case.loss_fn), case.model(case.batch[0]).detach()
    drawn = [likelihood.draw(z, case.batch[1], generator) for _ in range(samples)]
    return dense_scores(case, drawn, terms(case))


#: name -> (curvature, its dense matrix on a case).
CURVATURES: dict[str, tuple[Curvature, Callable[[Case], Tensor]]] = {
    "ggn": (bdhf.GGN(), dense_ggn),
    "fisher": (bdhf.Fisher(samples=2), lambda case: _dense_fisher(case, 2)),
    "empirical_fisher": (
        bdhf.EmpiricalFisher(),
        lambda case: dense_scores(case, [case.batch[1]], terms(case)),
    ),
    "hessian": (bdhf.Hessian(), dense_hessian),
}

assert set(CURVATURES) == set(build.CURVATURES), "a curvature without an oracle"


def fits(curvature: str, case: Case) -> bool:
    """Whether a curvature is defined for the loss of a case."""
    return (case.known or curvature in ("ggn", "hessian")) and (case.draws or curvature != "fisher")
