"""What the classification problems share: their metric, and checks of their sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from bdhf.problems.problem import Direction

METRICS: Mapping[str, Direction] = {"error": "lower"}


def measure(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """Share of wrong labels: outputs (N, classes), targets (N,).

    >>> import torch
    >>> float(measure(torch.eye(4), torch.tensor([0, 1, 2, 0]))["error"])
    0.25
    """
    wrong = outputs.argmax(1) != targets
    return {"error": wrong.to(outputs.dtype).mean()}


def check_sizes(**given: int) -> None:
    """Raise ValueError for a field that is not at least 1."""
    for field, size in given.items():
        if size < 1:
            raise ValueError(f"{field} must be at least 1; got {size}")


def check_widths(**given: Sequence[int]) -> None:
    """Raise ValueError for a field that does not list sizes of at least 1."""
    for field, sizes in given.items():
        if not sizes or min(sizes) < 1:
            raise ValueError(
                f"{field} {list(sizes)} must list at least one layer, each with a width of at "
                "least 1"
            )


def spread(layers: Sequence[str], bottom: Sequence[str], top: Sequence[str]) -> list[list[str]]:
    """One block per layer; what is below goes with the first, what is above with the last.

    >>> spread(["a.*", "b.*"], bottom=["stem.*"], top=["classifier.*"])
    [['stem.*', 'a.*'], ['b.*', 'classifier.*']]
    """
    blocks = [[layer] for layer in layers]
    blocks[0] = [*bottom, *blocks[0]]
    blocks[-1] = [*blocks[-1], *top]
    return blocks
