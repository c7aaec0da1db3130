"""The curvatures of the contract tests, each with the dense matrix that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

import bdhf
from bdhf.experiments.parts.tables import CURVATURES as TABLE
from bdhf.optim import Curvature, Partition
from bdhf.optim.forward.batches import Batch
from bdhf.optim.inspection.matrix import BlockCurvature
from bdhf.optim.losses import recognise, weights
from tests.cases import CASES, Case, build
from tests.messages import naming
from tests.oracles import dense_ggn, dense_hessian, dense_scores

SEED = 3  # of what a curvature draws


def is_mean(case: Case) -> bool:
    """Whether the loss of a case is a mean."""
    return getattr(case.loss_fn, "reduction", "mean") == "mean"


def counted(case: Case) -> Tensor:
    """Which labels count."""
    loss = case.loss_fn
    ignored = loss.keywords.get("ignore_index", -100) if isinstance(loss, partial) else -100
    return case.batch[1] != ignored


def terms(case: Case) -> float:
    """M by counting: labels that count, by the weight of their class, or elements."""
    y = case.batch[1]
    if y.is_floating_point():
        return y.numel()
    weight = getattr(case.loss_fn, "weight", None)
    mask = counted(case)
    return int(mask.sum()) if weight is None else float(weight[y[mask]].sum())


def observed(case: Case) -> Callable[[Tensor], Tensor]:
    """Σ_m ℓ_m at the targets of the case."""
    scale = terms(case) if is_mean(case) else 1
    return lambda z: scale * case.loss_fn(z, case.batch[1])


def dense_fisher(case: Case, samples: int, generator: torch.Generator) -> Tensor:
    """The same draws as the curvature's, put together by the definition."""
    likelihood, z = recognise(case.loss_fn), case.model(case.batch[0]).detach()
    draws = [likelihood.draw(z, case.batch[1], generator) for _ in range(samples)]
    losses = [partial(at_drawn, case, drawn) for drawn in draws]
    return dense_scores(case, losses, terms(case), is_mean(case))


def at_drawn(case: Case, drawn: Tensor, z: Tensor) -> Tensor:
    """Σ_m ℓ_m at drawn targets; a label that counts does so whatever was drawn for it."""
    if drawn.is_floating_point():
        scale = terms(case) if is_mean(case) else 1
        return scale * case.loss_fn(z, drawn)
    mask = counted(case)
    return -z.log_softmax(1).movedim(1, -1)[mask, drawn[mask]].sum()


#: name -> (curvature, its dense matrix on a case).
CURVATURES: dict[str, tuple[Curvature, Callable[[Case], Tensor]]] = {
    "ggn": (bdhf.GGN(), dense_ggn),
    "fisher": (
        bdhf.Fisher(samples=2),
        lambda case: dense_fisher(case, 2, torch.Generator().manual_seed(SEED)),
    ),
    "empirical_fisher": (
        bdhf.EmpiricalFisher(),
        lambda case: dense_scores(case, [observed(case)], terms(case), is_mean(case)),
    ),
    "hessian": (bdhf.Hessian(), dense_hessian),
    "mixed": (
        bdhf.Mixed(0.3),
        lambda case: 0.3 * dense_hessian(case) + 0.7 * dense_ggn(case),
    ),
}

#: The curvatures with second derivatives of the model: indefinite, and without a factor.
INDEFINITE = ("hessian", "mixed")

assert set(CURVATURES) == set(TABLE), "a curvature without an oracle"


def fits(curvature: str, case: Case) -> bool:
    """Whether a curvature is defined for the loss of a case."""
    return (case.recognised or curvature in ("ggn", *INDEFINITE)) and (
        case.draws or curvature != "fisher"
    )


#: (case, curvature) of the tables: where the curvature is defined for the loss, and where not.
DEFINED: list[tuple[str, str]] = []
UNDEFINED: list[tuple[str, str]] = []
for _name in CASES:
    for _curvature in CURVATURES:
        (DEFINED if fits(_curvature, build(_name)) else UNDEFINED).append((_name, _curvature))

#: What the refusal names: the loss and what it may have, or a curvature that it has.
NAMED_INSTEAD = f"{naming('log_cosh', 'bdhf.optim.Likelihood')}|{naming('GGN')}"

#: The cases with unknown terms of the loss: micro-batches cannot be weighted.
UNKNOWN_TERMS = [name for name in CASES if not build(name).recognised]


def curved(
    case: Case,
    curvature: str,
    partition: Partition,
    batch: Batch | list[Batch] | None = None,
) -> BlockCurvature:
    """The block curvature of a case under a curvature of the table."""
    return bdhf.block_curvature(
        case.model,
        case.loss_fn,
        case.batch if batch is None else batch,
        curvature=CURVATURES[curvature][0],
        partition=partition,
        seed=SEED,
    )


def by_pieces(case: Case, curvature: str, pieces: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Σ w_i of the dense matrices of the pieces; draws go from one piece to the next."""
    kind, dense = CURVATURES[curvature]
    shares = weights(case.loss_fn, [(case.model(x).detach(), y) for x, y in pieces])
    generator, total = torch.Generator().manual_seed(SEED), torch.zeros(())
    for share, piece in zip(shares, pieces, strict=True):
        part = replace(case, batch=piece)
        is_drawn = isinstance(kind, bdhf.Fisher)
        matrix = dense_fisher(part, kind.samples, generator) if is_drawn else dense(part)
        total = total + share * matrix
    return total
