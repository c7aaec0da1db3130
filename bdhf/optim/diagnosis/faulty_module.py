"""Which module causes a fault: each module runs alone on its inputs within the model."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from bdhf.optim.forward.objective import plain_kernels
from bdhf.optim.refusals.refusals import named
from bdhf.optim.torch_support.channels_last import ChannelsFirst
from bdhf.optim.torch_support.graphs import ends_early


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module in a forward pass of the model."""

    path: str
    module: nn.Module
    inputs: Any  # (arguments, keywords), copies
    moves: Sequence[bool]  # which of their tensors depend on trainable parameters
    outputs: Any


def first_change(model: nn.Module, inputs: Any) -> tuple[float, str]:
    """Relative change of the outputs between two forward passes, and where it begins.

    The named module had the same inputs twice, and other outputs.
    """
    if not _change(_run(model, inputs), _run(model, inputs)):
        return 0.0, ""
    first, second = calls_of(model, inputs), calls_of(model, inputs)
    pairs = list(zip(first, second, strict=False))
    whole = _change(first[-1].outputs, second[-1].outputs)  # the model itself ends last
    given_others = ""  # the first module whose inputs differ
    for a, b in pairs:  # a module ends after its children
        if _change(a.inputs, b.inputs):
            given_others = given_others or named(a.path, a.module)
        elif _change(a.outputs, b.outputs):
            before = f", in its forward before {given_others}," if given_others else ""
            return whole, f"{named(a.path, a.module)}{before}"
    return whole, named("", model)


def not_differentiable_twice(model: nn.Module, inputs: Any) -> str | None:
    """The innermost module whose outputs have no second derivative; None: all have one."""
    for call in calls_of(model, inputs):  # a module ends after its children
        try:
            _differentiate_twice(call.module, call.inputs)
        except (RuntimeError, NotImplementedError):
            return named(call.path, call.module)
    return None


def _differentiate_twice(module: nn.Module, inputs: Any) -> None:
    """Run a module on fresh leaves, as `Objective.outputs` does. Raises RuntimeError."""
    fresh = tree_map(_leaf, inputs)
    with torch.enable_grad(), plain_kernels(module), ChannelsFirst():
        arguments, keywords = tree_map(copied, fresh)  # a leaf must not change in place
        outputs = [z for z in tree_leaves(module(*arguments, **keywords)) if differentiable(z)]
    if not outputs:
        return
    sources = [x for x in [*tree_leaves(fresh), *module.parameters()] if differentiable(x)]
    with torch.enable_grad():
        u = torch.zeros_like(outputs[0], requires_grad=True)
        q = torch.autograd.grad(outputs[0], sources, u, create_graph=True, allow_unused=True)
        reached = [part for part in q if part is not None and part.requires_grad]
        if ends_early(reached):
            raise RuntimeError("it is marked once_differentiable")
        torch.autograd.grad(
            reached, [u, *sources], [torch.ones_like(part) for part in reached], allow_unused=True
        )


def _run(model: nn.Module, inputs: Any) -> Any:
    """The outputs, without a graph, of a model that may differentiate in its forward."""
    with torch.enable_grad():
        return tree_map(_detached, model(inputs))


def calls_of(model: nn.Module, inputs: Any) -> list[ModuleCall]:
    """Run the model, and return the calls of its modules in the order in which they end."""
    calls: list[ModuleCall] = []
    begun: list[tuple[nn.Module, Any, Sequence[bool]]] = []  # without an end so far

    def begin(module: nn.Module, arguments: Any, keywords: Any) -> None:
        both = arguments, keywords
        moves = [differentiable(x) for x in tree_leaves(both)]
        begun.append((module, tree_map(_copy, both), moves))

    with contextlib.ExitStack() as hooks, torch.enable_grad():
        for path, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # it takes no hooks of this kind

            def end(
                module: nn.Module, arguments: Any, keywords: Any, outputs: Any, path: str = path
            ) -> None:
                while begun[-1][0] is not module:  # a call that raised, and was caught
                    begun.pop()
                calls.append(ModuleCall(path, *begun.pop(), tree_map(_copy, outputs)))

            for handle in (
                module.register_forward_pre_hook(begin, with_kwargs=True, prepend=True),
                module.register_forward_hook(end, with_kwargs=True),
            ):
                hooks.callback(handle.remove)
        model(inputs)
    return calls


def _change(a: Any, b: Any) -> float:
    pairs = [
        (x.double(), y.double())
        for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True)
        if isinstance(x, Tensor)
    ]
    changes = [float((x - y).norm() / x.norm().clamp_min(1e-300)) for x, y in pairs if x.numel()]
    return max((change for change in changes if change == change), default=0.0)


def differentiable(x: Any) -> bool:
    """Whether this is a tensor that autograd follows."""
    return isinstance(x, Tensor) and x.requires_grad


def _leaf(x: Any) -> Any:
    if isinstance(x, Tensor) and x.is_floating_point():
        return x.detach().clone().requires_grad_()
    return x


def copied(x: Any) -> Any:
    """A copy with a graph for a leaf; anything else unchanged."""
    return x.clone() if differentiable(x) else x


def _copy(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else x


def _detached(x: Any) -> Any:
    return x.detach() if isinstance(x, Tensor) else x
