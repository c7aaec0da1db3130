"""What a piece of work costs, in floating-point operations, by torch's own table of formulas.

Counting slows a piece of work down, so each is counted once per key (its kind and shapes) and
remembered. Where only the costs are asked for, a `Tally` does what pieces have in common once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bdhf.optim.dispatch import DispatchMode

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

    def part(self, key: Hashable, work: Callable[[], T]) -> T:
        """Do `work`, a part of a piece of work that others have too; counted with that piece.

        `key` tells all that what it gives depends on, beside model, batch and settings.
        """
        return work()

    def once(self, key: Hashable, work: Callable[[], T]) -> T:
        """Do `work` outside of every piece, such as a check: it is not counted."""
        return work()

    def release(self, let_go: Callable[[], None]) -> None:
        """Let go of what this linearisation needs no longer, unless others share it."""
        let_go()

    def cost(self, key: Hashable) -> int:
        """The cost of one run of `key`, which has been run before."""
        return self._known[key]


@dataclass(frozen=True)
class Done:
    """A part that was done: what it gave, and what it cost."""

    result: Any
    cost: int


class Tally(Flops):
    """A meter for work whose numbers nobody needs: a part that is known is not done again.

    The costs are those of `Flops`. Tallies on one model, batch and settings may share `done`, which
    holds what the parts gave: forward passes and their graphs.

    >>> done, a = {}, torch.ones(2, 3)
    >>> for tally in (Tally(done), Tally(done)):
    ...     _ = tally.run("product", lambda: tally.part("square", lambda: a @ a.T).sum())
    ...     tally.spent
    24
    24
    """

    def __init__(self, done: dict[Hashable, Done]) -> None:
        super().__init__()
        self._done = done
        self._spared = 0  # cost of the parts that were known, of all work that is going on

    def run(self, key: Hashable, work: Callable[[], T]) -> T:
        """Do `work`, but for its known parts, whose cost is counted nevertheless."""
        if key not in self._known:
            result, self._known[key] = self._counted(work)
        else:
            result = work()
        self.spent += self._known[key]
        return result

    def part(self, key: Hashable, work: Callable[[], T]) -> T:
        """Do `work` if nobody has; give what it gave."""
        if key in self._done:
            self._spared += self._done[key].cost
        else:
            self._done[key] = Done(*self._counted(work))
        result: T = self._done[key].result
        return result

    def once(self, key: Hashable, work: Callable[[], T]) -> T:
        """Do `work` if nobody has; give what it gave."""
        if key not in self._done:
            self._done[key] = Done(work(), 0)
        result: T = self._done[key].result
        return result

    def release(self, let_go: Callable[[], None]) -> None:
        """Keep it, for whoever comes next."""

    def _counted(self, work: Callable[[], T]) -> tuple[T, int]:
        """What `work` gives, and what it costs with the parts that it spares."""
        spared = self._spared
        with _Counter() as counter:
            result = work()
        return result, counter.total + self._spared - spared


class _Counter(DispatchMode):
    """Adds up the cost of every operator that reaches the dispatcher.

    Differs from torch.utils.flop_counter.FlopCounterMode, whose table it uses, in leaving no
    module hooks behind on a graph that is kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.total += operator_flops(func, args, kwargs or {}, result)
        return result


def operator_flops(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """What one operator costs; 0 for those without matrix products."""
    formula = _formula(func)
    return int(formula(*args, **kwargs, out_val=result)) if formula is not None else 0


@cache
def _formula(func: Any) -> Callable[..., int] | None:
    """Torch's formula for an operator; None for those without matrix products."""
    name = func._overloadpacket.__name__
    packet = getattr(torch.ops.aten, name.rstrip("_"), None) if name.endswith("_") else None
    formula: Callable[..., int] | None = flop_registry.get(  # torch lists none in place
        packet or func._overloadpacket
    )
    return formula


def signature(batch: Any) -> Hashable:
    """What the cost of a batch depends on: shape, dtype and device of each of its tensors."""
    leaves = (leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor))
    return tuple(_tensor_signature(leaf) for leaf in leaves)


def _tensor_signature(tensor: Tensor) -> Hashable:
    return tuple(tensor.shape), tensor.dtype, tensor.device
