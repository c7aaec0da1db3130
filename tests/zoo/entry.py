"""An entry of the zoo: a model, its loss and a batch, and the expected outcome."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import Case

#: Words that the message of a refusal must hold, each a regular expression.
Words = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A case, built afresh for each test, and where it is refused: elsewhere it is right.

    Keys of `refused` are curvatures ("ggn", "hessian", "fisher"), "step" for the update of the
    optimizer, or "all" for the others. The products of a curvature in `doubted` are wrong since a
    formula of torch or the model's own backward pass is: the check must say so. An update that is
    `warned` of runs nevertheless.
    """

    build: Callable[[], Case]
    refused: Mapping[str, Words] = field(default_factory=dict)
    doubted: Mapping[str, Words] = field(default_factory=dict)
    warned: str = ""
    damping: float = 1.0  # of the update
    reference: Any = None  # the loss with the same matrix, if that is another
    partitions: tuple[str, ...] = ("full", "per_layer", "per_neuron")

    def outcome(self, what: str) -> str:
        """The expected outcome: "right", "refused", and "doubted", or "warned" for an update."""
        if self.words(what) is not None:
            return "refused"
        if what == "step" and self.warned:
            return "warned"
        return "doubted" if what in self.doubted else "right"

    def words(self, what: str) -> Words | None:
        """The words of the refusal; None where the entry is right."""
        return self.refused.get(what, self.refused.get("all"))


def regression(model: nn.Module, inputs: Any, loss_fn: Any = F.mse_loss) -> Case:
    """A model and random targets of the shape of its outputs."""
    outputs = model(inputs)
    return Case(model, loss_fn, (inputs, torch.randn(outputs.shape)))


def classes(model: nn.Module, inputs: Any, loss_fn: Any = F.cross_entropy) -> Case:
    """A model with scores of classes in dimension 1 as outputs, and random labels."""
    shape = model(inputs).shape
    return Case(model, loss_fn, (inputs, torch.randint(0, shape[1], (shape[0], *shape[2:]))))


#: Dimensions of one sample -> the layer in front.
FRONTS: Mapping[int, Callable[..., nn.Module]] = {
    1: lambda n: nn.Linear(n, n),
    2: lambda n: nn.Conv1d(n, n, 1),
    3: lambda n: nn.Conv2d(n, n, 1),
    4: lambda n: nn.Conv3d(n, n, 1),
}


def between(layer: nn.Module, *shape: int, n: int = 3) -> Case:
    """A layer with trainable layers on both sides, on n samples of the shape (channels, ...)."""
    x = torch.randn(n, *shape)
    front = FRONTS[len(shape)](shape[0])
    width = layer(front(x)).flatten(1).shape[1]
    return regression(nn.Sequential(front, layer, nn.Flatten(), nn.Linear(width, 2)), x)


def seeded(build: Callable[[], Case]) -> Case:
    """Build from one seed, leaving torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated parts of torch are included
        torch.manual_seed(0)
        return build()


def cast(case: Case, dtype: torch.dtype) -> Case:
    """The same numbers in another precision: the model itself is converted."""
    batch = torch.utils._pytree.tree_map(lambda leaf: _cast(leaf, dtype), case.batch)
    return Case(
        case.model.to(dtype), _cast(case.loss_fn, dtype), batch, case.recognised, case.draws
    )


def _cast(leaf: Any, dtype: torch.dtype) -> Any:
    """A tensor of real numbers, a loss module, or a loss with arguments, in another precision."""
    if isinstance(leaf, (Tensor, nn.Module)):
        whole = isinstance(leaf, Tensor) and not leaf.is_floating_point()
        return leaf if whole else copy.deepcopy(leaf).to(dtype)
    if isinstance(leaf, partial):
        keywords = {key: _cast(value, dtype) for key, value in leaf.keywords.items()}
        return partial(leaf.func, *leaf.args, **keywords)
    return leaf
