"""What a piece of work costs, in floating-point operations, by torch's own table of formulas.

Counting slows a piece of work down, so each is counted once per key (its kind and shapes) and
remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

T = TypeVar("T")


class Flops:
    """A meter: `run(key, work)` does the work and adds its cost to `spent`.

    >>> flops, a = Flops(), torch.ones(2, 3)
    >>> _ = flops.run("product", lambda: a @ a.T)
    >>> _ = flops.run("product", lambda: a @ a.T)
    >>> flops.spent  # twice 2 · 2 · 3 · 2
    48
    """

    def __init__(self) -> None:
        self.spent = 0
        self._known: dict[Hashable, int] = {}

    def run(self, key: Hashable, work: Callable[[], T]) -> T:
        """Do `work`; its cost is counted the first time that `key` is seen."""
        if key in self._known:
            result = work()
        else:
            with _Counter() as counter:
                result = work()
            self._known[key] = counter.total
        self.spent += self._known[key]
        return result

    def cost(self, key: Hashable) -> int:
        """The cost of one run of `key`, which has been run before."""
        return self._known[key]


class _Counter(TorchDispatchMode):
    """Adds up the cost of every operator that reaches the dispatcher.

    Differs from torch.utils.flop_counter.FlopCounterMode, whose table it uses, in leaving no
    module hooks behind on a graph that is kept.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.total += operator_flops(func, args, kwargs or {}, result)
        return result


def operator_flops(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """What one operator costs; 0 for those without matrix products."""
    name = func._overloadpacket.__name__
    packet = getattr(torch.ops.aten, name.rstrip("_"), None) if name.endswith("_") else None
    formula = flop_registry.get(packet or func._overloadpacket)  # torch lists none in place
    return int(formula(*args, **kwargs, out_val=result)) if formula is not None else 0


def signature(batch: Any) -> Hashable:
    """What the cost of a batch depends on: shape, dtype and device of each of its tensors."""
    leaves = (leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor))
    return tuple(_tensor_signature(leaf) for leaf in leaves)


def _tensor_signature(tensor: Tensor) -> Hashable:
    return tuple(tensor.shape), tensor.dtype, tensor.device
