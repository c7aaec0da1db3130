"""Losses of every kind on one small model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import Case
from tests.messages import naming
from tests.zoo.entry import Entry, Words, regression

NO_TERMS: Words = (r"GGN|bdhf\.optim\.Likelihood",)
NO_LIKELIHOOD: dict[str, Words] = {"fisher": NO_TERMS}
NOT_TWICE: dict[str, Words] = {
    "all": (r"bdhf\.optim\.Likelihood", "EmpiricalFisher"),
    "fisher": NO_TERMS,
}
FLAT = naming(0, "l1_loss", "damping")
WEIGHTS = torch.tensor([1.0, 2.0, 0.5])


class Adaptive(nn.Module):
    """Rare classes in their own cluster (Grave et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Linear(3, 3)
        self.head = nn.AdaptiveLogSoftmaxWithLoss(3, 3, [1], div_value=2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head.log_prob(torch.tanh(self.front(x)))


class Temperature(nn.Module):
    """Cross-entropy with a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.3))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs * self.log_scale.exp(), targets)


def _model(outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, outputs))


def _labels(
    loss_fn: Any,
    refused: dict[str, Words] | None = None,
    dtype: torch.dtype = torch.long,
    **arguments: Any,
) -> Entry:
    """The loss of class labels."""
    labels = torch.tensor([1, 0, 2, 1, 1], dtype=dtype)
    return _case(loss_fn, lambda _: labels, refused, **arguments)


def _case(
    loss_fn: Any,
    targets: Callable[[Tensor], Any],
    refused: dict[str, Words] | None = None,
    model: Callable[[], nn.Module] = _model,
    trained: bool = False,
    **arguments: Any,
) -> Entry:
    """A loss; one that is trained is built afresh, as the model is."""

    def made() -> Case:
        network, x = model(), torch.randn(5, 3)
        loss = loss_fn() if trained else loss_fn
        return Case(network, loss, (x, targets(network(x).detach())))

    return Entry(made, refused or {}, partitions=("full", "per_layer", "random"), **arguments)


def _dense() -> Case:
    model, x = (
        nn.Sequential(nn.Conv1d(2, 2, 1), nn.Tanh(), nn.Conv1d(2, 3, 1)),
        torch.randn(3, 2, 3),
    )
    labels = torch.tensor([[0, 1, -100], [2, 2, 1], [-100, -100, 0]])
    return Case(model, F.cross_entropy, (x, labels))


def _penalised() -> Case:
    case = regression(_model(), torch.randn(5, 3))

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs, targets) + 0.1 * case.model[0].weight.square().sum()

    return Case(case.model, loss_fn, case.batch)


def _log_cosh(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).cosh().log().mean()


class OfParts(nn.Module):
    """A loss of torch of other arguments than outputs and targets."""

    def __init__(self, loss: nn.Module, parts: Callable[[Tensor, Tensor], tuple[Any, ...]]) -> None:
        super().__init__()
        self.loss, self.parts = loss, parts

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(*self.parts(outputs, targets))


def _gaussian(z: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return z[:, :2], y, F.softplus(z[:, 2:]) + 0.1


def _ctc(z: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return z.log_softmax(1)[:, None], y, torch.tensor([5]), torch.tensor([2])


def _divergence(outputs: Tensor, targets: Tensor) -> Tensor:
    """The same, as a function of outputs that need not be log-probabilities."""
    return F.kl_div(outputs.log_softmax(1), targets, reduction="batchmean")


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
    "cross-entropy, summed": _labels(nn.CrossEntropyLoss(reduction="sum")),
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
        nn.NLLLoss(), lambda _: torch.tensor([1, 0, 2, 1, 1]), None,
        lambda: _model().append(nn.LogSoftmax(1)), reference=F.cross_entropy,
    ),
    "huber": _case(nn.HuberLoss(), torch.randn_like, NO_LIKELIHOOD),
    "smooth l1": _case(nn.SmoothL1Loss(), torch.randn_like, NO_LIKELIHOOD),
    "poisson": _case(nn.PoissonNLLLoss(), lambda z: torch.rand(z.shape).round(), NO_LIKELIHOOD),
    "gaussian likelihood": _case(
        OfParts(nn.GaussianNLLLoss(), _gaussian), lambda z: torch.randn(len(z), 2), NO_LIKELIHOOD
    ),
    "binary, of probabilities": _case(
        nn.BCELoss(), torch.rand_like, NO_LIKELIHOOD, lambda: _model().append(nn.Sigmoid())
    ),
    "soft margin": _case(nn.SoftMarginLoss(), _signs, NO_LIKELIHOOD),
    "multi-label": _case(nn.MultiLabelSoftMarginLoss(), torch.rand_like, NO_LIKELIHOOD),
    "divergence of log softmax": _case(
        nn.KLDivLoss(reduction="batchmean"), lambda z: torch.randn(z.shape).softmax(1),
        NO_LIKELIHOOD, lambda: _model().append(nn.LogSoftmax(1)), reference=_divergence,
    ),
    "cosine of embeddings": _case(
        OfParts(nn.CosineEmbeddingLoss(-0.5), lambda z, y: (z[:, :2], z[:, 1:], y)),
        lambda z: _signs(z)[:, 0], NO_LIKELIHOOD, damping=1e3,
    ),
    "triplets": _case(
        OfParts(nn.TripletMarginLoss(9.0), lambda z, y: (z, y, -y)), torch.randn_like, NO_LIKELIHOOD
    ),
    "triplets of a distance": _case(
        OfParts(nn.TripletMarginWithDistanceLoss(margin=9.0), lambda z, y: (z, y, -y)),
        torch.randn_like, NO_LIKELIHOOD,
    ),
    "ranking": _case(
        OfParts(nn.MarginRankingLoss(9.0), lambda z, y: (z[:, 0], z[:, 1], y)),
        lambda z: _signs(z)[:, 0], NO_LIKELIHOOD, warned=FLAT,
    ),
    "hinge": _case(nn.HingeEmbeddingLoss(9.0), _signs, NO_LIKELIHOOD, warned=FLAT),
    "own, convex": _case(_log_cosh, torch.randn_like, NO_LIKELIHOOD),
    "learned temperature": _labels(Temperature, NO_LIKELIHOOD, trained=True),
    "absolute error": _case(
        nn.L1Loss(), torch.randn_like, NO_LIKELIHOOD, warned=FLAT
    ),
    "penalty in a closure": Entry(
        _penalised, {"all": ("'0.weight'", r"bdhf\.L2"), "fisher": NO_TERMS}
    ),
    "margins of classes": _labels(nn.MultiMarginLoss(p=2), NOT_TWICE),
    "margins of labels": _case(
        nn.MultiLabelMarginLoss(),
        lambda z: torch.tensor([[0, 2, -1]]).expand(len(z), -1),
        NOT_TWICE,
    ),
    "alignment": _case(
        OfParts(nn.CTCLoss(), _ctc), lambda _: torch.tensor([[1, 2]]), NOT_TWICE
    ),
    "adaptive softmax": _labels(nn.NLLLoss(), model=Adaptive, reference=F.cross_entropy),
}  # fmt: skip

if hasattr(nn, "LinearCrossEntropyLoss"):  # from torch 2.13 on
    ENTRIES["linear layer of the loss"] = _labels(
        lambda: nn.LinearCrossEntropyLoss(3, 3), NO_LIKELIHOOD, trained=True
    )
