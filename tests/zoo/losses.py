"""Losses of every kind on one small model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import Case
from tests.zoo.entry import Entry, Words, regression

NO_LIKELIHOOD: dict[str, Words] = {"fisher": ("likelihood|terms of the loss",)}
NOT_TWICE: dict[str, Words] = {
    "all": (r"second derivative|differentiat", "GGN|Fisher|another loss|replace")
}
WEIGHTS = torch.tensor([1.0, 2.0, 0.5])


class Temperature(nn.Module):
    """Cross-entropy with a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.3))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs * self.log_scale.exp(), targets)


def _model(outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, outputs))


def _labels(loss_fn: Any, refused: dict[str, Words] | None = None, **arguments: Any) -> Entry:
    """Class labels, by default [1, 0, 2, 1, 1]."""
    labels = torch.tensor([1, 0, 2, 1, 1])
    return _case(loss_fn, lambda _: labels.to(**arguments), refused)


def _case(
    loss_fn: Any,
    targets: Callable[[Tensor], Any],
    refused: dict[str, Words] | None = None,
    model: Callable[[], nn.Module] = _model,
) -> Entry:
    def made() -> Case:
        network, x = model(), torch.randn(5, 3)
        loss = loss_fn() if isinstance(loss_fn, type) else loss_fn
        return Case(network, loss, (x, targets(network(x).detach())))

    return Entry(made, refused or {}, partitions=("full", "per_layer", "random"))


def _dense() -> Case:
    model, x = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Tanh(), nn.Conv1d(2, 3, 1)), torch.randn(3, 2, 3)
    labels = torch.tensor([[0, 1, -100], [2, 2, 1], [-100, -100, 0]])
    return Case(model, F.cross_entropy, (x, labels))


def _penalised() -> Case:
    case = regression(_model(), torch.randn(5, 3))

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs, targets) + 0.1 * case.model[0].weight.square().sum()

    return Case(case.model, loss_fn, case.batch)


def _log_cosh(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).cosh().log().mean()


def _gaussian(outputs: Tensor, targets: Tensor) -> Tensor:
    mean, variance = outputs[:, :2], F.softplus(outputs[:, 2:]) + 0.1
    return F.gaussian_nll_loss(mean, targets, variance)


def _embedding(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cosine_embedding_loss(outputs[:, :2], outputs[:, 1:], targets, margin=-0.5)


def _triplet(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.triplet_margin_loss(outputs, targets, -targets, margin=9.0)


def _ctc(outputs: Tensor, targets: Tensor) -> Tensor:
    log_p = outputs.log_softmax(1)[:, None]
    return F.ctc_loss(log_p, targets, torch.tensor([5]), torch.tensor([2]))


def _signs(z: Tensor) -> Tensor:
    return torch.randn(z.shape).sign()


ENTRIES: dict[str, Entry] = {
    "cross-entropy": _labels(F.cross_entropy),
    "cross-entropy, weighted": _labels(nn.CrossEntropyLoss(weight=WEIGHTS), NO_LIKELIHOOD),
    "cross-entropy, weighted by keyword": _labels(
        partial(F.cross_entropy, weight=WEIGHTS), NO_LIKELIHOOD
    ),
    "cross-entropy, smoothed": _labels(nn.CrossEntropyLoss(label_smoothing=0.2), NO_LIKELIHOOD),
    "cross-entropy, ignoring": _labels(partial(F.cross_entropy, ignore_index=1)),
    "cross-entropy, summed": _labels(partial(F.cross_entropy, reduction="sum")),
    "cross-entropy, labels of a byte": _labels(F.cross_entropy, dtype=torch.uint8),
    "cross-entropy, weighted, labels of a byte": _labels(
        nn.CrossEntropyLoss(weight=WEIGHTS), NO_LIKELIHOOD, dtype=torch.uint8
    ),
    "cross-entropy, soft labels": _case(
        F.cross_entropy, lambda z: torch.randn(z.shape).softmax(1), NO_LIKELIHOOD
    ),
    "cross-entropy of every position": Entry(_dense),
    "squared error": _case(F.mse_loss, torch.randn_like),
    "squared error, summed": _case(nn.MSELoss(reduction="sum"), torch.randn_like),
    "binary": _case(F.binary_cross_entropy_with_logits, torch.rand_like),
    "binary, weighted": _case(
        nn.BCEWithLogitsLoss(pos_weight=WEIGHTS), torch.rand_like, NO_LIKELIHOOD
    ),
    "likelihood of log softmax": _case(
        F.nll_loss, lambda _: torch.tensor([1, 0, 2, 1, 1]), NO_LIKELIHOOD,
        lambda: _model().append(nn.LogSoftmax(1)),
    ),
    "huber": _case(F.huber_loss, torch.randn_like, NO_LIKELIHOOD),
    "smooth l1": _case(nn.SmoothL1Loss(), torch.randn_like, NO_LIKELIHOOD),
    "poisson": _case(nn.PoissonNLLLoss(), lambda z: torch.rand(z.shape).round(), NO_LIKELIHOOD),
    "gaussian likelihood": _case(_gaussian, lambda z: torch.randn(len(z), 2), NO_LIKELIHOOD),
    "soft margin": _case(nn.SoftMarginLoss(), _signs, NO_LIKELIHOOD),
    "multi-label": _case(nn.MultiLabelSoftMarginLoss(), torch.rand_like, NO_LIKELIHOOD),
    "divergence of log softmax": _case(
        nn.KLDivLoss(reduction="batchmean"), lambda z: torch.randn(z.shape).softmax(1),
        NO_LIKELIHOOD, lambda: _model().append(nn.LogSoftmax(1)),
    ),
    "cosine of embeddings": _case(_embedding, lambda z: _signs(z)[:, 0], NO_LIKELIHOOD),
    "triplets": _case(_triplet, torch.randn_like, NO_LIKELIHOOD),
    "own, convex": _case(_log_cosh, torch.randn_like, NO_LIKELIHOOD),
    "learned temperature": _labels(Temperature, NO_LIKELIHOOD),
    "absolute error": _case(F.l1_loss, torch.randn_like, NO_LIKELIHOOD),
    "penalty in a closure": Entry(_penalised, {"all": ("parameter", "L2|loss module|outputs")}),
    "margins of classes": _labels(nn.MultiMarginLoss(p=2), NOT_TWICE),
    "alignment": _case(_ctc, lambda _: torch.tensor([[1, 2]]), NOT_TWICE),
}  # fmt: skip
