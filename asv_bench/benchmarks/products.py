"""Linearising a model and multiplying by its curvature: seconds, and peak bytes.

curvature × partition × method × model × device. Set-up is `bdhf.block_curvature`: forward pass,
gradient, and the choices and counts of a run; linearising is the part of it in every update. A
product is `G @ v`, which never runs the model again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

import bdhf

from .devices import DEVICES, Clock
from .linearising import linearising
from .memory import peak_bytes
from .models import MODELS, example
from .tracked import Timed, amount

CURVATURES: Mapping[str, Callable[[], bdhf.optim.Curvature]] = {
    "ggn": bdhf.GGN,
    "fisher": bdhf.Fisher,
    "empirical_fisher": bdhf.EmpiricalFisher,
    "hessian": bdhf.Hessian,
}
PARTITIONS = ("full", "per_layer", "per_neuron")
METHODS = ("propagate", "layer_io")

timer = Clock()


@dataclass(frozen=True)
class Subject:
    """Something to set up, and its product with a fixed vector."""

    set_up: Callable[[], bdhf.BlockCurvature]
    linearise: Callable[[], object]
    product: Callable[[], Tensor]
    device: str


@lru_cache(maxsize=1)
def subject(model: str, curvature: str, partition: str, method: str, device: str) -> Subject:
    """A subject for timing. Raises NotImplementedError for combinations to leave out."""
    from bdhf.optim.products import Settings

    if partition == "per_neuron" and (method == "propagate" or model == "transformer"):
        raise NotImplementedError("a sweep for every neuron is of no use")
    if model == "autoencoder" and curvature == "ggn" and method == "layer_io":
        raise NotImplementedError("a factor row for every pixel is of no use")
    own = example(model, device)

    def set_up() -> bdhf.BlockCurvature:
        return bdhf.block_curvature(
            own.model, own.loss, own.batch,
            curvature=CURVATURES[curvature](), partition=own.partition(partition), method=method,
        )  # fmt: skip

    G = set_up()
    if G.method != method:
        raise NotImplementedError(f"{method} does not support it")
    v = torch.randn(G.shape[0], generator=torch.Generator().manual_seed(0)).to(device)
    for _ in range(2):
        G @ v  # the first one counts its operators
    _, again = linearising(
        own.model, own.loss, own.batch, CURVATURES[curvature](), own.partition(partition),
        Settings(method=method),
    )  # fmt: skip
    again()
    return Subject(set_up, again, lambda: G @ v, device)


class Product(Timed):
    """One curvature matrix, set up and multiplied by."""

    param_names = ("model", "curvature", "partition", "method", "device")
    params = (tuple(MODELS), tuple(CURVATURES), PARTITIONS, METHODS, DEVICES)

    def setup(self, *combination: str) -> None:
        """Take the subject of this combination."""
        self.subject = subject(*combination)

    def time_set_up(self, *_: str) -> None:
        """Seconds of linearising at new parameters, decisions included."""
        self.subject.set_up()

    def time_linearise(self, *_: str) -> None:
        """Seconds of linearising again, as every update of a run does."""
        self.subject.linearise()

    def time_product(self, *_: str) -> None:
        """Seconds of one product with all blocks."""
        self.subject.product()

    @amount("bytes")
    def track_peak_of_set_up(self, *_: str) -> int:
        """Bytes held at once while linearising, beyond what was there."""
        return peak_bytes(self.subject.set_up, self.subject.device)

    @amount("bytes")
    def track_peak_of_product(self, *_: str) -> int:
        """Bytes held at once during a product, beyond what was there."""
        return peak_bytes(self.subject.product, self.subject.device)
