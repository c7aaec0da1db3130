"""Optimizers other than `block_hf`: all of torch.optim as `torch.Name`, and a user's own."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import torch

from bdhf.experiments.errors import Fault, Faults, Keys, unknown
from bdhf.experiments.parts.resolve import Resolved, plain_data
from bdhf.experiments.parts.user_parts import is_own, own_class
from bdhf.records import in_brief


def optimizer_class(kind: Any, path: Keys) -> Callable[..., torch.optim.Optimizer] | None:
    """An optimizer of torch, or of the user's; None for any other name. Raises Faults."""
    if not isinstance(kind, str):
        return None
    if not is_own(kind):
        return torch_optimizers().get(kind)
    try:
        return own_class(kind, torch.optim.Optimizer)
    except ValueError as error:
        raise Faults(Fault((*path, "type"), str(error))) from None


def torch_optimizers() -> dict[str, Callable[..., torch.optim.Optimizer]]:
    """Every optimizer of torch.optim, as `torch.Name`."""
    return {
        f"torch.{name}": cls
        for name, cls in sorted(vars(torch.optim).items())
        if isinstance(cls, type)
        and issubclass(cls, torch.optim.Optimizer)
        and cls is not torch.optim.Optimizer
    }


def torch_arguments(arm: Resolved) -> dict[str, Any]:
    """The arguments of a torch optimizer, with tuples for lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in arm.items() if k != "type"}


def written_out(resolved: Resolved) -> Resolved:
    """A resolved optimizer with its default arguments written out.

    >>> written_out({"type": "torch.SGD", "lr": 0.1})["momentum"]
    0
    """
    cls = optimizer_class(resolved["type"], ())
    if cls is None:
        return resolved
    parameters = list(inspect.signature(cls).parameters.values())[1:]
    defaults = {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.default is not parameter.empty
    }
    return {"type": resolved["type"], **plain_data(defaults), **resolved}


def resolve_optimizer(
    cls: Callable[..., Any], arm: dict[str, Any], path: Keys, trial: Callable[..., Any]
) -> Resolved:
    """The arguments of a torch optimizer that differ from its defaults. Raises Faults.

    `trial(**arguments)` builds one, which may refuse its arguments.
    """
    name = arm["type"]
    parameters = dict(list(inspect.signature(cls).parameters.items())[1:])
    arguments = torch_arguments(arm)
    faults = [
        Fault((*path, key), unknown(f"key of {name}", key, parameters), at_key=True)
        for key in arguments
        if key not in parameters
    ]
    faults += [
        Fault((*path, key), f"{key} must be {wanted}; got {plain_data(value)!r}")
        for key, value in arguments.items()
        if key in parameters and (wanted := _misses(parameters[key].default, value))
    ]
    if faults:
        raise Faults(*faults)
    try:
        trial(**arguments)
    except Exception as error:  # torch may raise anything here
        text = in_brief(error)
        named = next((key for key, value in arguments.items() if _mentions(text, value)), None)
        text = f"{name} refuses: {text}"
        raise Faults(Fault(path if named is None else (*path, named), text)) from None
    if not is_own(name):
        _check_update(cls, name, arguments, path)
    own = {key: value for key, value in arguments.items() if value != parameters[key].default}
    return {"type": name, **plain_data(own)}


def _check_update(
    cls: Callable[..., Any], name: str, arguments: dict[str, Any], path: Keys
) -> None:
    """Try one update on a few numbers, because some settings fail only there.

    Raises Faults at the setting without which the update works, or at the optimizer.
    """
    text = _refused_update(cls, arguments)
    if not text:
        return
    others = {key: {k: v for k, v in arguments.items() if k != key} for key in arguments}
    culprit = next((key for key, rest in others.items() if not _refused_update(cls, rest)), None)
    at = path if culprit is None else (*path, culprit)
    raise Faults(Fault(at, f"{name} fails in an update: {text}"))


def _refused_update(cls: Callable[..., Any], arguments: dict[str, Any]) -> str:
    """The error of an update with a dense gradient on the CPU; "" if it works."""
    weight = torch.nn.Parameter(torch.ones(2, 2))

    def closure() -> torch.Tensor:
        weight.grad = None
        loss = weight.square().sum()
        loss.backward()
        return loss

    try:
        cls([weight], **arguments).step(closure)
    except Exception as error:  # torch may raise anything here
        return in_brief(error)
    return ""


def _misses(default: Any, value: Any) -> str:
    """The type that a value should have by its default; "" if it has it, or any is allowed.

    torch treats any text as true: `amsgrad: no` would turn amsgrad on.
    """
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(default, (int, float)):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return "" if is_number else "a number"
    if isinstance(default, tuple):
        is_list = isinstance(value, tuple) and len(value) == len(default)
        return (
            "" if is_list else f"a list of {len(default)} values such as {plain_data([*default])}"
        )
    return ""


def _mentions(text: str, value: object) -> bool:
    """Whether a text contains the value as a whole word."""
    return re.search(rf"(?<![\w.+-]){re.escape(str(value))}(?![\w.])", text) is not None
