"""Parameters <-> flat vector: the trainable tensors of a model, in order.

The trainable tensors of a model, in the order of `model.parameters()`, are one flat vector of P
entries. Those of a loss that is a module follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bdhf.optim.errors import ModelError


@dataclass(frozen=True)
class Slot:
    """One trainable tensor: its place in the model or its loss, and in the flat vector."""

    name: str  # as model.named_parameters() reports it: the first name of a tied tensor
    owners: tuple[tuple[str, nn.Module], ...]  # path and module, from the outermost to the owner
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
    """The trainable tensors of a model and of its loss, in order.

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


def layout_of(model: nn.Module, loss_fn: object = None) -> Layout:
    """List the trainable tensors of a model, then those of a loss that is a module.

    A tied tensor is listed once, under its first name. Names of the loss begin with "loss.", or
    "loss_fn." where the model has a "loss" itself. Raises ModelError when nothing of the model is
    trainable.

    >>> layout = layout_of(nn.Linear(3, 2), nn.PReLU())  # any module, as a loss
    >>> [(slot.name, slot.start) for slot in layout.slots]
    [('weight', 0), ('bias', 6), ('loss.weight', 8)]
    """
    slots: list[Slot] = []
    frozen: list[str] = []
    for name, owners, parameter in _firsts(model, loss_fn):
        if not parameter.requires_grad:
            frozen.append(name)
            continue
        start = slots[-1].stop if slots else 0
        slots.append(Slot(name, owners, parameter.shape, start))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(
            f"{type(model).__name__} has no trainable parameter: "
            "set requires_grad on at least one before building blocks"
        )
    listed = {slot.name for slot in slots} | set(frozen)
    names = (name for name, _, _ in _every(model, loss_fn))
    return Layout(tuple(slots), tuple(frozen), tuple(n for n in names if n not in listed))


def named_parameters(model: nn.Module, loss_fn: object = None) -> dict[str, nn.Parameter]:
    """Every parameter of a model and of a loss module, frozen ones too, once, by its first name."""
    held = loss_fn.named_parameters() if isinstance(loss_fn, nn.Module) else ()
    models = dict(model.named_parameters())
    seen = {id(parameter) for parameter in models.values()}
    first = _prefix(model) if isinstance(loss_fn, nn.Module) else ""
    return models | {f"{first}.{name}": p for name, p in held if id(p) not in seen}


Owners = tuple[tuple[str, nn.Module], ...]
Named = tuple[str, Owners, nn.Parameter]


def _firsts(model: nn.Module, loss_fn: object) -> Iterator[Named]:
    """Every parameter once, under its first name."""
    seen: set[int] = set()
    for name, owners, parameter in _every(model, loss_fn):
        if id(parameter) not in seen:
            seen.add(id(parameter))
            yield name, owners, parameter


def _every(model: nn.Module, loss_fn: object) -> Iterator[Named]:
    """Every name of every parameter: those of the model, then those of a loss module."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        yield name, _owners(model, name), parameter
    if isinstance(loss_fn, nn.Module):
        first = _prefix(model)
        for name, parameter in loss_fn.named_parameters(remove_duplicate=False):
            own = _owners(loss_fn, name)
            owners = tuple((f"{first}.{path}" if path else first, module) for path, module in own)
            yield f"{first}.{name}", owners, parameter


def _prefix(model: nn.Module) -> str:
    """The first prefix that no name in the model has."""
    names = [*dict(model.named_modules()), *dict(model.named_parameters())]
    used = {name.split(".")[0] for name in names}
    return next(name for name in _prefixes() if name not in used)


def _prefixes() -> Iterator[str]:
    yield "loss"
    name = "loss_fn"
    while True:
        yield name
        name += "_"


def _owners(root: nn.Module, name: str) -> Owners:
    parts = name.split(".")
    paths = [".".join(parts[:depth]) for depth in range(len(parts))]
    return tuple((path, root.get_submodule(path)) for path in paths)


def split_like(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Consecutive views of a flat vector with the shapes of the tensors."""
    return _split(flat, [tensor.shape for tensor in tensors])


def _split(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    parts = flat.split([shape.numel() for shape in shapes], dim=-1)
    ahead = flat.shape[:-1]
    return [part.view((*ahead, *shape)) for part, shape in zip(parts, shapes, strict=True)]


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """One vector of all entries, tensor after tensor: the inverse of `split_like`."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
