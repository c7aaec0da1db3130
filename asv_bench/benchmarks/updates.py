"""One update of every recipe on every model: seconds, bytes, and counts in float64.

The timed update is the second of a run, each time from the same parameters and the same warm start:
the choices and checks of a run are done before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch

import bdhf

from .devices import DEVICES, Clock
from .memory import peak_bytes
from .models import MODELS, Example, example
from .tracked import Gathered, Timed, amount, count, gathered, taken


def _martens2010(own: Example) -> torch.optim.Optimizer:
    return bdhf.recipes.martens2010(own.model, own.loss)


def _zhang2017(partition: str) -> Callable[[Example], torch.optim.Optimizer]:
    def made(own: Example) -> torch.optim.Optimizer:
        return bdhf.recipes.zhang2017(
            own.model, own.loss, own.partition(partition), lr=0.5, damping=1e-3
        )

    return made


def _adam(own: Example) -> torch.optim.Optimizer:
    return torch.optim.Adam(own.model.parameters(), lr=1e-3)


#: Name -> optimizer of a model. Adam shows the common costs.
RECIPES: Mapping[str, Callable[[Example], torch.optim.Optimizer]] = {
    "martens2010": _martens2010,
    "zhang2017 full": _zhang2017("full"),
    "zhang2017 groups": _zhang2017("groups"),
    "zhang2017 per_layer": _zhang2017("per_layer"),
    "adam": _adam,
}

timer = Clock()


class Training:
    """A model and its optimizer, which can return to the end of the first update."""

    def __init__(self, recipe: str, model: str, device: str, dtype: torch.dtype) -> None:
        self.own, self.device = example(model, device, dtype), device
        self.optimizer = RECIPES[recipe](self.own)
        self.update()
        self._parameters = [p.detach().clone() for p in self.own.model.parameters()]
        self._state = copy.deepcopy(self.optimizer.state_dict())

    def back(self) -> None:
        """Restore parameters and state after the first update."""
        with torch.no_grad():
            for parameter, kept in zip(self.own.model.parameters(), self._parameters, strict=True):
                parameter.copy_(kept)
        self.optimizer.load_state_dict(copy.deepcopy(self._state))

    def update(self) -> Any:
        """One update on the batch; returns our StepInfo, and None for torch's optimizers."""
        if isinstance(self.optimizer, bdhf.BlockHessianFree):
            return self.optimizer.step(self.own.batch)
        inputs, targets = self.own.batch
        self.optimizer.zero_grad()
        self.own.loss(self.own.model(inputs), targets).backward()
        self.optimizer.step()
        return None


@lru_cache(maxsize=1)
def training(recipe: str, model: str, device: str, dtype: torch.dtype) -> Training:
    """A cached training after its first update."""
    made = Training(recipe, model, device, dtype)
    made.update()  # makes the choices of a second update
    return made


class Update(Timed):
    """One update in float32 as a run has it."""

    param_names = ("recipe", "model", "device")
    params = (tuple(RECIPES), tuple(MODELS), DEVICES)

    def setup(self, recipe: str, model: str, device: str) -> None:
        """Go back to where the update starts."""
        self.training = training(recipe, model, device, torch.float32)
        self.training.back()

    def time_update(self, *_: str) -> None:
        """Seconds of the update."""
        self.training.update()

    @amount("bytes")
    def track_peak(self, *_: str) -> int:
        """Bytes held at once by the update, beyond model, batch and state."""
        return peak_bytes(self.training.update, self.training.device)


def took(recipe: str, model: str, device: str) -> Mapping[str, float]:
    """The counts of the first three updates together, over all blocks."""
    own = example(model, device, torch.float64)
    optimizer = RECIPES[recipe](own)
    assert isinstance(optimizer, bdhf.BlockHessianFree)  # Adam has no such counts
    infos = [optimizer.step(own.batch) for _ in range(3)]
    return {
        "iterations": sum(sum(info.cg_iterations) for info in infos),
        "products": sum(info.products for info in infos),
        "gradients": sum(info.gradient_equivalents for info in infos),
    }


class Counted:
    """The counts of the first three updates in float64, over all blocks and updates."""

    param_names = ("recipe", "model", "device")
    params = (tuple(name for name in RECIPES if name != "adam"), tuple(MODELS), DEVICES)

    def setup_cache(self) -> Gathered:
        """Make the updates once for all numbers."""
        return gathered(took, self.params)

    setup_cache.timeout = 600.0  # type: ignore[attr-defined]

    def setup(self, cache: Gathered, *combination: str) -> None:
        """Take those of this recipe and model."""
        self.took = taken(cache, combination)

    @count("iterations")
    def track_cg_iterations(self, *_: str) -> float:
        """Iterations of CG."""
        return self.took["iterations"]

    @count("products")
    def track_products(self, *_: str) -> float:
        """Products, each block by its share of the parameters."""
        return self.took["products"]

    @count("gradients")
    def track_gradient_equivalents(self, *_: str) -> float:
        """FLOPs in units of one gradient."""
        return self.took["gradients"]
