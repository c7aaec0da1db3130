"""Which module is to blame: modules are run one by one on what they are given in the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from bdhf.optim.guard import ChannelsFirst
from bdhf.optim.objective import plain_kernels

Call = tuple[str, nn.Module, Any, Any]  # path, module, (arguments, keywords), outputs


def not_repeatable(model: nn.Module, inputs: Any) -> tuple[float, str]:
    """Relative change of the outputs between two forward passes, and the first module with one."""
    with torch.no_grad():
        if not _change(model(inputs), model(inputs)):
            return 0.0, ""
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
    for path, module, given, _ in calls:  # a module ends after its children
        try:
            _differentiate_twice(module, given)
        except (RuntimeError, NotImplementedError):
            return _name(path, module)
    return None


def _differentiate_twice(module: nn.Module, given: Any) -> None:
    """Run a module on leaves of its own, as `Objective.outputs` does. Raises RuntimeError."""
    fresh = tree_map(_leaf, given)
    with torch.enable_grad(), plain_kernels(module), ChannelsFirst():
        arguments, keywords = tree_map(_copied, fresh)  # a leaf may not be changed in place
        outputs = [z for z in tree_leaves(module(*arguments, **keywords)) if _differentiable(z)]
    if not outputs:
        return
    sources = [x for x in [*tree_leaves(fresh), *module.parameters()] if _differentiable(x)]
    with torch.enable_grad():
        u = torch.zeros_like(outputs[0], requires_grad=True)
        q = torch.autograd.grad(outputs[0], sources, u, create_graph=True, allow_unused=True)
        reached = [part for part in q if part is not None and part.requires_grad]
        _refuse_cut_graphs(reached)
        torch.autograd.grad(
            reached, [u, *sources], [torch.ones_like(part) for part in reached], allow_unused=True
        )


def _refuse_cut_graphs(tensors: list[Tensor]) -> None:
    """Raise RuntimeError where a graph ends in what torch puts behind `once_differentiable`."""
    todo = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(todo)
    while todo:
        node = todo.pop()
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("it is marked once_differentiable")
        behind = {following for following, _ in node.next_functions if following is not None}
        todo += behind - seen
        seen |= behind


def _calls(model: nn.Module, inputs: Any) -> Iterator[Call]:
    """Run the model; every call of a module, in the order in which they end."""
    calls: list[Call] = []
    with contextlib.ExitStack() as hooks:
        for path, module in model.named_modules():

            def record(
                module: nn.Module, arguments: Any, keywords: Any, outputs: Any, path: str = path
            ) -> None:
                calls.append((path, module, (arguments, keywords), tree_map(_copy, outputs)))

            handle = module.register_forward_hook(record, with_kwargs=True)
            hooks.callback(handle.remove)
        model(inputs)
    yield from calls


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


def _copied(x: Any) -> Any:
    return x.clone() if _differentiable(x) else x


def _copy(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else x


def _name(path: str, module: nn.Module) -> str:
    where = repr(path) if path else "at the root"
    return f"module {where} ({type(module).__name__})"
