"""Common code of the classification problems: labels, loss, metric, and checks of sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from bdhf.problems.data import Part
from bdhf.problems.images import ImageProblem
from bdhf.problems.problem import Better, Loss


@dataclass(frozen=True)
class Classification(ImageProblem):
    """A model that scores the classes of an image, under cross-entropy."""

    @property
    def metrics(self) -> Mapping[str, Better]:
        """`error` is the share of wrong labels."""
        return {"error": "lower"}

    @property
    def loss(self) -> Loss:
        """Cross-entropy, a mean over samples."""
        return F.cross_entropy

    def measure(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Share of wrong labels: outputs (N, classes), targets (N,).

        >>> import torch
        >>> from bdhf.problems import MLP
        >>> float(MLP().measure(torch.eye(4), torch.tensor([0, 1, 2, 0]))["error"])
        0.25
        """
        wrong = outputs.argmax(1) != targets
        return {"error": wrong.to(outputs.dtype).mean()}

    def _part(self, part: Part) -> Part:
        pixels, labels = part
        return self._inputs(pixels), labels

    def _inputs(self, pixels: Tensor) -> Tensor:
        """The inputs of the model, from pixels (N, features)."""
        return pixels


def check_sizes(**fields: int) -> None:
    """Raise ValueError for a field that is not at least 1."""
    for field, size in fields.items():
        if size < 1:
            raise ValueError(f"{field} must be at least 1; got {size}")


def check_widths(**fields: Sequence[int]) -> None:
    """Raise ValueError for a field that does not list sizes of at least 1."""
    for field, sizes in fields.items():
        if not sizes or min(sizes) < 1:
            raise ValueError(
                f"{field} {list(sizes)} must list at least one layer, each with a width of at "
                "least 1"
            )


def spread(layers: Sequence[str], bottom: Sequence[str], top: Sequence[str]) -> list[list[str]]:
    """One block per layer; `bottom` belongs to the first block, `top` to the last.

    >>> spread(["a.*", "b.*"], bottom=["stem.*"], top=["classifier.*"])
    [['stem.*', 'a.*'], ['b.*', 'classifier.*']]
    """
    blocks = [[layer] for layer in layers]
    blocks[0] = [*bottom, *blocks[0]]
    blocks[-1] = [*blocks[-1], *top]
    return blocks
