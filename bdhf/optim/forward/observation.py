"""A forward pass that is observed once, before anything is computed, without side effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _pop_mode_temporarily
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from bdhf.optim.forward.buffers import buffers_kept
from bdhf.optim.torch_support.channels_last import ChannelsFirst
from bdhf.optim.torch_support.channels_last_operators import (
    aten,
    is_verified,
    like_channels_last,
    needs_channels_first,
)
from bdhf.optim.torch_support.dispatch import DispatchMode
from bdhf.optim.torch_support.graphs import is_own_function, nodes_behind


@dataclass
class Observation:
    """What a forward pass did that concerns the memory order of images."""

    unverified: str = ""  # the first part of it that is not verified for channels-last
    channels_last: bool = False  # whether a tensor in it was
    convolves: bool = False  # whether it has a convolution
    recomputed: bool = False  # whether the backward pass runs parts of it again
    wrong: set[str] = field(default_factory=set)  # operators that are wrong in torch as called
    sensitive: Counter[str] = field(default_factory=Counter)  # ... and would be, channels-last
    graph: Counter[str] = field(default_factory=Counter)  # of the outputs: nodes by name

    def refuse(self, reason: str) -> None:
        """Record an unverified part; the first counts."""
        self.unverified = self.unverified or reason


def observe_pass(model: nn.Module, inputs: Any, *, guarded: bool = False) -> Observation:
    """Run a model, `guarded` by `ChannelsFirst` or not, and observe it.

    Active modes, random generators and buffers are not affected.
    """
    observed = Observation()
    guard = ChannelsFirst()
    with unseen(model), guard if guarded else nullcontext(), _Observer(observed):
        outputs = model(inputs)
    observed.graph = graph_of(outputs)
    if custom := [name for name in observed.graph if name.startswith(_CUSTOM)]:
        observed.refuse(f"{custom[0]}, whose backward pass cannot be observed")
    norms = str(aten.native_batch_norm.default)
    if observed.channels_last and observed.sensitive[norms] != guard.instance_norms:
        observed.wrong.add(norms)  # a gradient may arrive channels-last
    return observed


def pass_signature(model: nn.Module, inputs: Any) -> Hashable:
    """The key of forward passes of which one is observed: shapes of inputs, and flags.

    Flags such as `training` are booleans and strings, of every module and among the inputs.
    """
    flags = [
        value
        for module in model.modules()
        for value in module.__dict__.values()
        if type(value) is bool or type(value) is str
    ]
    leaves = tree_leaves(inputs)
    tensors = [(tuple(x.shape), x.dtype, x.device) for x in leaves if isinstance(x, Tensor)]
    words = [leaf for leaf in leaves if isinstance(leaf, (bool, str))]
    return tuple(tensors), tuple(flags), tuple(words)


_CUSTOM = "autograd.Function "


def graph_of(outputs: Any) -> Counter[str]:
    """The nodes of the graph behind some outputs, counted by name."""
    leaves = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    return Counter(
        (_CUSTOM if is_own_function(node) else "") + node.name() for node in nodes_behind(leaves)
    )


class _Observer(DispatchMode):
    def __init__(self, observed: Observation) -> None:
        super().__init__()
        self._observed = observed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, observed = kwargs or {}, self._observed
        restrides = func is aten.as_strided_.default
        before = (args[0].shape, args[0].is_contiguous()) if restrides else None
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ordered = any(like_channels_last(tensor) for tensor in read)
        result = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if before is not None:  # such as pooling to one pixel: no entry moves
            if before != (made[0].shape, True) or not made[0].is_contiguous():
                observed.refuse(str(func))
        elif not is_verified(func, args, made):
            observed.refuse(str(func))
        if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
            observed.recomputed = True
            observed.refuse("a part that the backward pass runs again")
        observed.convolves |= func is aten.convolution.default
        if needs_channels_first(func, args):
            observed.sensitive[str(func)] += 1
            if ordered:
                observed.wrong.add(str(func))
        observed.channels_last |= ordered or any(map(like_channels_last, made))
        return result


@contextmanager
def unseen(model: nn.Module) -> Iterator[None]:
    """Run the body uncounted, and restore random state and the buffers of the model."""
    with buffers_kept(model), ExitStack() as hidden:
        for _ in range(torch._C._len_torch_function_stack()):
            hidden.enter_context(_pop_mode_temporarily())
        hidden.enter_context(_disable_current_modes())
        hidden.enter_context(torch.random.fork_rng(devices=[]))
        yield
