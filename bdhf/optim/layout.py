"""Parameters <-> flat vector: the trainable tensors of a model, in order, and how to split one.

The trainable tensors of a model, in the order of `model.parameters()`, are one flat vector of P
entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bdhf.optim.errors import ModelError


@dataclass(frozen=True)
class Slot:
    """One trainable tensor: where it lives in the model, and in the flat vector."""

    name: str  # as model.named_parameters() reports it: the first name of a tied tensor
    owners: tuple[tuple[str, nn.Module], ...]  # path and module, from the model to the owner
    shape: torch.Size
    start: int  # flat position of its first entry

    @property
    def stop(self) -> int:
        """Flat position behind the last entry."""
        return self.start + self.shape.numel()

    def positions(self) -> Tensor:
        """Flat positions of the entries, (numel,)."""
        return torch.arange(self.start, self.stop)


@dataclass(frozen=True)
class Layout:
    """The trainable tensors of a model, in order.

    >>> layout = layout_of(nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)))
    >>> [(slot.name, slot.start) for slot in layout.slots]
    [('0.weight', 0), ('0.bias', 6), ('2.weight', 8), ('2.bias', 10)]
    >>> layout.size
    11
    """

    slots: tuple[Slot, ...]
    frozen: tuple[str, ...]  # names of the parameters that do not require a gradient
    aliases: tuple[str, ...]  # further names of tied tensors, which have their slot elsewhere

    @property
    def size(self) -> int:
        """P, the number of trainable entries."""
        return self.slots[-1].stop

    def split(self, flat: Tensor) -> list[Tensor]:
        """Views of flat vectors in the shapes of the slots, (..., P) -> (..., *shape)."""
        return _split(flat, [slot.shape for slot in self.slots])

    def slot_at(self, positions: Tensor) -> Tensor:
        """Index of the slot that holds each flat position, same shape as `positions`."""
        return torch.bucketize(positions, torch.tensor([s.stop for s in self.slots]), right=True)


def layout_of(model: nn.Module) -> Layout:
    """List the trainable tensors of a model; a tied tensor is listed once, under its first name.

    Raises ModelError when nothing is trainable.
    """
    slots: list[Slot] = []
    frozen: list[str] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            frozen.append(name)
            continue
        start = slots[-1].stop if slots else 0
        slots.append(Slot(name, _owners(model, name), parameter.shape, start))
    if not slots:
        raise ModelError(
            f"{type(model).__name__} has no trainable parameter: "
            "set requires_grad on at least one before building blocks"
        )
    listed = {slot.name for slot in slots} | set(frozen)
    names = (name for name, _ in model.named_parameters(remove_duplicate=False))
    return Layout(tuple(slots), tuple(frozen), tuple(n for n in names if n not in listed))


def _owners(model: nn.Module, name: str) -> tuple[tuple[str, nn.Module], ...]:
    parts = name.split(".")
    paths = [".".join(parts[:depth]) for depth in range(len(parts))]
    return tuple((path, model.get_submodule(path)) for path in paths)


def split_like(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Views of a flat vector with the shapes of the tensors, one behind the other."""
    return _split(flat, [tensor.shape for tensor in tensors])


def _split(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    parts = flat.split([shape.numel() for shape in shapes], dim=-1)
    ahead = flat.shape[:-1]
    return [part.view((*ahead, *shape)) for part, shape in zip(parts, shapes, strict=True)]


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """One vector of all entries, one tensor behind the other: what `split_like` takes apart."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
