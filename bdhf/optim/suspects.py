"""Which module is to blame: modules are run one by one on what they are given in the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

Call = tuple[str, nn.Module, tuple[Any, ...], Any]  # path, module, arguments, outputs


def not_repeatable(model: nn.Module, inputs: Any) -> tuple[float, str]:
    """Relative change of the outputs between two forward passes, and the first module with one."""
    with torch.no_grad():
        first, second = list(_calls(model, inputs)), list(_calls(model, inputs))
    changes = [
        (_change(a[3], b[3]), _name(a[0], a[1])) for a, b in zip(first, second, strict=False)
    ]
    whole = changes[-1][0]  # the model itself ends last
    return next(((whole, name) for change, name in changes if change > 0), (whole, ""))


def not_differentiable_twice(model: nn.Module, inputs: Any) -> str | None:
    """The innermost module whose outputs have no second derivative; None: all have one."""
    with torch.no_grad():
        calls = list(_calls(model, inputs))
    for path, module, arguments, _ in calls:  # a module ends after its children
        try:
            _differentiate_twice(module, arguments)
        except (RuntimeError, NotImplementedError):
            return _name(path, module)
    return None


def _differentiate_twice(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    fresh = tree_map(_leaf, arguments)
    with torch.enable_grad():
        outputs = [z for z in tree_leaves(module(*fresh)) if _differentiable(z)]
    if not outputs:
        return
    sources = [x for x in [*tree_leaves(fresh), *module.parameters()] if _differentiable(x)]
    with torch.enable_grad():
        u = torch.zeros_like(outputs[0], requires_grad=True)
        q = torch.autograd.grad(outputs[0], sources, u, create_graph=True, allow_unused=True)
        reached = [part for part in q if part is not None and part.requires_grad]
        torch.autograd.grad(
            reached, [u, *sources], [torch.ones_like(part) for part in reached], allow_unused=True
        )


def _calls(model: nn.Module, inputs: Any) -> Iterator[Call]:
    """Run the model; every call of a module, in the order in which they end."""
    calls: list[Call] = []
    with contextlib.ExitStack() as hooks:
        for path, module in model.named_modules():

            def record(
                module: nn.Module, arguments: tuple[Any, ...], outputs: Any, path: str = path
            ) -> None:
                calls.append((path, module, arguments, tree_map(_copy, outputs)))

            hooks.enter_context(contextlib.closing(_Handle(module.register_forward_hook(record))))
        model(inputs)
    yield from calls


class _Handle:
    """A hook that `contextlib.closing` removes."""

    def __init__(self, handle: torch.utils.hooks.RemovableHandle) -> None:
        self.close = handle.remove


def _change(a: Any, b: Any) -> float:
    pairs = [
        (x.double(), y.double())
        for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True)
        if isinstance(x, Tensor)
    ]
    changes = [float((x - y).norm() / x.norm().clamp_min(1e-300)) for x, y in pairs if x.numel()]
    return max((change for change in changes if change == change), default=0.0)


def _differentiable(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _leaf(x: Any) -> Any:
    if isinstance(x, Tensor) and x.is_floating_point():
        return x.detach().clone().requires_grad_()
    return x


def _copy(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else x


def _name(path: str, module: nn.Module) -> str:
    where = repr(path) if path else "at the root"
    return f"module {where} ({type(module).__name__})"
