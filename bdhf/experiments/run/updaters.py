"""One update of any optimizer, and its cost: one interface for torch.optim and block HF."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bdhf.optim import BlockHessianFree, CostWarning, StepInfo, Stop
from bdhf.problems import Problem

TensorBatch = tuple[Tensor, Tensor]

#: Column of the curve -> why a solver stopped on a block; the rest of 1 is `nonfinite`.
_STOPS: Mapping[str, Stop] = {
    "stop_converged": Stop.CONVERGED,
    "stop_progress": Stop.PROGRESS,
    "stop_max_iters": Stop.MAX_ITERS,
    "negative_curvature": Stop.NEGATIVE_CURVATURE,
}


@dataclass(frozen=True)
class UpdateRecord:
    """What the loop records of every update."""

    loss: float  # on the gradient batch, before the update
    norm: float  # of the gradient, if the optimizer computes it; else 0
    products: float  # full curvature products
    gradient_equivalents: float


class Updater(Protocol):
    """Makes updates. Only `step` is timed."""

    def step(
        self, batch: TensorBatch, curvature: TensorBatch | None, watch: Callable[[], None]
    ) -> UpdateRecord:
        """Update once; `watch` may raise to end the run."""

    def check(
        self, batch: TensorBatch, curvature: TensorBatch | None, watch: Callable[[], None]
    ) -> None:
        """Check, before the first update, whether updates can be right; `watch` as in `step`."""

    def prepare(self) -> None:
        """Prepare the measurement of the next update."""

    def measure(self, energy_probes: int | None) -> Mapping[str, float]:
        """Measure the last update, in columns of the curve.

        `energy_probes`: measure the share of curvature outside the blocks with so many probes.
        """


def updater_of(optimizer: torch.optim.Optimizer, model: nn.Module, problem: Problem) -> Updater:
    """Wrap an optimizer."""
    if isinstance(optimizer, BlockHessianFree):
        return BlockUpdater(optimizer)
    return TorchUpdater(optimizer, model, problem)


class BlockUpdater:
    """Updates of block-diagonal Hessian-free."""

    def __init__(self, optimizer: BlockHessianFree) -> None:
        self._optimizer = optimizer
        self._info: StepInfo | None = None
        self._batch: TensorBatch | None = None

    def check(
        self, batch: TensorBatch, curvature: TensorBatch | None, watch: Callable[[], None]
    ) -> None:
        """Check the products once, without warnings on their cost, which the plan reports."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CostWarning)
            self._optimizer.check(curvature or batch, watch=watch)

    def step(
        self, batch: TensorBatch, curvature: TensorBatch | None, watch: Callable[[], None]
    ) -> UpdateRecord:
        """Take one step of the optimizer."""
        info = self._info = self._optimizer.step(batch, curvature, watch=watch)
        self._batch = curvature or batch
        return UpdateRecord(info.loss, info.grad_norm, info.products, info.gradient_equivalents)

    def prepare(self) -> None:
        """Do nothing: the optimizer measures every step itself."""

    def measure(self, energy_probes: int | None) -> Mapping[str, float]:
        """Means over blocks or groups if there are several."""
        info, batch = self._info, self._batch
        if info is None or batch is None:
            return {}
        energy = self._optimizer.off_block_energy(batch, energy_probes) if energy_probes else None
        return {
            **({} if energy is None else {"off_block_energy": energy}),
            "grad_norm": info.grad_norm,
            "step_norm": info.step_norm,
            "damping": fmean(info.damping),
            "step_size": fmean(info.step_size),
            "cg_iterations": fmean(info.cg_iterations),
            "reduction_ratio": info.reduction_ratio,
            **{name: fmean(stop == why for stop in info.stop) for name, why in _STOPS.items()},
        }


class TorchUpdater:
    """Updates of any optimizer of torch.optim, by a closure: L-BFGS calls it more than once."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, model: nn.Module, problem: Problem
    ) -> None:
        self._optimizer, self._model, self._problem = optimizer, model, problem
        self._before: list[Tensor] = []

    def step(
        self, batch: TensorBatch, curvature: TensorBatch | None, watch: Callable[[], None]
    ) -> UpdateRecord:
        """Take one step; the loss is that of the first call of the closure."""
        losses: list[Tensor] = []

        def closure() -> Tensor:
            watch()
            self._optimizer.zero_grad()
            loss = self._problem.loss(self._model(batch[0]), batch[1])
            loss.backward()
            losses.append(loss.detach())
            return loss

        step: Any = self._optimizer.step  # typed for closures that return a float
        step(closure)
        return UpdateRecord(losses[0].item(), 0.0, 0.0, float(len(losses)))

    def check(
        self, batch: TensorBatch, curvature: TensorBatch | None, watch: Callable[[], None]
    ) -> None:
        """Do nothing: there is nothing to check in a plain gradient."""

    def prepare(self) -> None:
        """Keep the parameters, to measure the length of the next step."""
        self._before = [p.detach().clone() for p in self._model.parameters()]

    def measure(self, energy_probes: int | None) -> Mapping[str, float]:
        """Norms of the last gradient and of the last step; the present learning rate."""
        parameters = list(self._model.parameters())
        gradients = [p.grad for p in parameters if p.grad is not None]
        before, self._before = self._before, []
        steps = [p.detach() - old for p, old in zip(parameters, before, strict=bool(before))]
        rates = [float(group.get("lr", math.nan)) for group in self._optimizer.param_groups]
        return {
            "grad_norm": _norm(gradients),
            "step_norm": _norm(steps),
            "step_size": fmean(rates),
        }


def _norm(tensors: list[Tensor]) -> float:
    return float(nn.utils.get_total_norm(tensors)) if tensors else math.nan
