"""Properties of the forward passes of a model, tested once per signature of inputs and flags.

Is it the same function without gradients? Losses of trial steps need no graph. But a model may
differentiate in its forward (physics-informed networks, force fields), or branch on whether
gradients are enabled. Such a model runs with its graph, which is freed at once, so that all losses
of an update are of one function.

Does its graph contain all parameters? A reentrant checkpoint hides those inside of it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import TransformType
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from bdhf.optim.errors import ModelError
from bdhf.optim.forward.observation import graph_of, pass_signature, unseen
from bdhf.optim.torch_support.failures import is_out_of_memory

#: Relative difference of the outputs that rounding may explain, by their precision.
_TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4}
_COARSE = 5e-2

#: What a forward pass that differentiates raises without a graph.
NEED_GRAPH = (RuntimeError, AssertionError)


@dataclass
class Passes:
    """Properties of the forward passes of one model."""

    model: nn.Module
    graphless: dict[Hashable, bool] = field(default_factory=dict, init=False)
    walked: set[Hashable] = field(default_factory=set, init=False)
    nested: bool = field(default=False, init=False)  # whether a torch.func.jvp is in a transform

    def may_drop_graph(self, inputs: Any, run: Callable[[Any], Any]) -> bool:
        """Whether `run`, the forward pass, gives the same outputs under no_grad.

        Tested once per signature of inputs, by two passes without side effects.
        """
        key = self.key(inputs)
        if key not in self.graphless:
            with unseen(self.model):
                self.graphless[key] = _same(inputs, run)
        return self.graphless[key]

    def lean(self, inputs: Any, run: Callable[[Any], Any]) -> tuple[Any, bool]:
        """The outputs of `run`, the forward pass, and whether with a graph: only if it needs one.

        The earlier test may no longer hold, if training continues with a loss of derivatives: a
        pass that fails without a graph is tested again.
        """
        if self.may_drop_graph(inputs, run):
            try:
                with torch.no_grad():
                    return run(inputs), False
            except NEED_GRAPH as error:
                if is_out_of_memory(error):
                    raise
                del self.graphless[self.key(inputs)]
                if self.may_drop_graph(inputs, run):  # the graph is not the cause
                    raise
        with torch.enable_grad():
            return run(inputs), True

    def outputs(self, inputs: Any, run: Callable[[Any], Any]) -> Tensor:
        """The outputs of `run`, the forward pass, for an evaluation: without a graph."""
        outputs: Tensor = self.lean(inputs, run)[0]
        return outputs.detach()

    def watching(self, key: Hashable) -> AbstractContextManager[object]:
        """On the first forward pass of a signature, record whether transforms nest."""
        return nullcontext() if key in self.walked else _Levels(self)

    def check_graph(self, key: Hashable, outputs: Tensor) -> None:
        """Walk the graph of the outputs once per signature.

        Raises ModelError for a reentrant checkpoint, whose parameters are in no graph.
        """
        if key in self.walked:
            return
        if any("CheckpointFunction" in name for name in graph_of(outputs)):
            raise ModelError(
                f"{type(self.model).__name__} has a part in a reentrant checkpoint, which hides "
                "its parameters from torch.autograd.grad: pass use_reentrant=False to "
                "torch.utils.checkpoint (with Hugging Face's models: gradient_checkpointing_enable("
                "gradient_checkpointing_kwargs={'use_reentrant': False}))"
            )
        self.walked.add(key)

    def key(self, inputs: Any) -> Hashable:
        """The signature of a forward pass at present."""
        return pass_signature(self.model, inputs)


class _Levels(TorchFunctionMode):
    """Records whether functions run in a nested torch.func.jvp, as in jacfwd and hessian."""

    def __init__(self, passes: Passes) -> None:
        super().__init__()
        self._passes = passes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch._C._functorch.maybe_current_level() is not None:
            stack = torch._C._functorch.get_interpreter_stack() or []
            kinds = [interpreter.key() for interpreter in stack]
            self._passes.nested |= len(kinds) > 1 and TransformType.Jvp in kinds
        return func(*args, **(kwargs or {}))


def _detached(tree: Any) -> Any:
    """The same tensors without their graph."""
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, tree)


def _same(inputs: Any, run: Callable[[Any], Any]) -> bool:
    with torch.enable_grad():
        with_graph = _detached(run(inputs))
    try:
        with torch.no_grad():
            without = run(inputs)
    except NEED_GRAPH:
        return False
    pairs = list(zip(tree_leaves(with_graph), tree_leaves(without), strict=True))
    return all(_close(a, b) for a, b in pairs if isinstance(a, Tensor))


def _close(a: Tensor, b: Any) -> bool:
    if not isinstance(b, Tensor) or a.shape != b.shape or a.layout != b.layout:
        return False
    tolerance = _TOLERANCES.get(a.dtype, _COARSE)
    return torch.allclose(
        a.double(), b.double(), rtol=tolerance, equal_nan=True,
        atol=tolerance * float(a.double().abs().nan_to_num(0, 0, 0).max()) if a.numel() else 0.0,
    )  # fmt: skip
