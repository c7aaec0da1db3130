"""What a piece of work costs, in floating-point operations, by tables of formulas.

The tables are torch's own and that of `flop_formulas.py`, for what torch leaves out. Counting slows
a piece of work down, so each is counted once per key (its kind and shapes) and remembered. Where
only the costs are asked for, a `Tally` does what pieces have in common once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bdhf.optim.torch_support.dispatch import DispatchMode
from bdhf.optim.torch_support.flop_formulas import FORMULAS, FREE

T = TypeVar("T")


class UncountedWarning(UserWarning):
    """An operator whose FLOPs nobody knows, so that costs come out too low."""


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
        self._said: set[str] = set()  # operators that a warning has named
        self.flat = 0  # what every further piece counts; 0: it is counted

    def run(self, key: Hashable, work: Callable[[], T]) -> T:
        """Do `work`; its cost is counted the first time that `key` is seen."""
        if key in self._known:
            result = work()
        else:
            result, self._known[key] = self._measured(work)
        self.spent += self._known[key]
        return result

    def stop_counting(self) -> None:
        """Let every further piece count as much as all that was counted so far.

        Watching operators on the way back through nested transforms of torch.func ends the process
        (torch 2.13).
        """
        if not self.flat:
            self.flat = max(self.spent, 1)
            warnings.warn(_TRANSFORMED, UncountedWarning, stacklevel=3)

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

    def _measured(self, work: Callable[[], T]) -> tuple[T, int]:
        """What `work` gives, and what it costs; a warning names what could not be counted."""
        if self.flat:
            return work(), self.flat
        with _Counter() as counter:
            result = work()
        for name, shape in counter.uncounted.items():
            if name not in self._said:
                self._said.add(name)
                warnings.warn(_uncounted(name, shape), UncountedWarning, stacklevel=3)
        return result, counter.total


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
        result, cost = self._measured(work)
        return result, cost + self._spared - spared


class _Counter(DispatchMode):
    """Adds up the cost of every operator that reaches the dispatcher.

    Differs from torch.utils.flop_counter.FlopCounterMode, whose table it uses, in leaving no
    module hooks behind on a graph that is kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.uncounted: dict[str, tuple[int, ...]] = {}  # operator -> matrix of parameters it read
        self._stored: set[int] = set()  # storages of the parameters that were seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        self._stored.update(_storage(x) for x in tensors if isinstance(x, nn.Parameter))
        if _formula(func) is not None:
            self.total += operator_flops(func, args, kwargs, result)
        elif not _is_free(func) and any(isinstance(x, Tensor) for x in tree_leaves(result)):
            self._note(str(func._overloadpacket), tensors)
        return result

    def _note(self, name: str, tensors: list[Tensor]) -> None:
        """Remember an operator without a formula that reads a matrix of parameters, or a view."""
        read = [x for x in tensors if x.dim() > 1 and _storage(x) in self._stored - {0}]
        if read:
            self.uncounted.setdefault(name, tuple(read[0].shape))


def operator_flops(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """What one operator costs; 0 for those without matrix products."""
    formula = _formula(func)
    return round(formula(*args, **kwargs, out_val=result)) if formula is not None else 0


def _formula(func: Any) -> Callable[..., float] | None:
    """Our formula for an operator, or torch's; None for those without matrix products."""
    packet = _packet(func)
    if func.namespace == "aten" and packet.__name__ in FORMULAS:
        return FORMULAS[packet.__name__]
    formula: Callable[..., float] | None = flop_registry.get(packet)
    return formula


def _packet(func: Any) -> Any:
    """The operator of a call; for one in place the other one, since tables list none in place."""
    packet = func._overloadpacket
    name = packet.__name__
    if func.namespace != "aten" or not name.endswith("_"):
        return packet
    return getattr(torch.ops.aten, name.rstrip("_"), packet)


@cache
def _is_free(func: Any) -> bool:
    """Whether an operator is known to be no matrix product: views, pointwise ones, and `FREE`."""
    if func.is_view or torch.Tag.pointwise in func.tags:
        return True
    name = func._overloadpacket.__name__
    return func.namespace in ("aten", "prim", "prims") and (
        name in FREE or name.startswith(("new_", "_new_", "empty", "zero", "one", "full", "rand"))
    )


def _storage(tensor: Tensor) -> int:
    """Where a tensor lies; 0 for one that lies nowhere, such as a sparse one or a wrapper."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0


_TRANSFORMED = (
    "the forward pass nests transforms of torch.func, and operators cannot be counted behind them: "
    "every product and loss counts as one linearisation in gradient_equivalents and budgets"
)


def _uncounted(name: str, shape: tuple[int, ...]) -> str:
    return (
        f"the operator {name}, which reads a parameter of shape {shape}, has no FLOP formula: it "
        "counts nothing in gradient_equivalents, estimates and budgets; give it one by "
        f"torch.utils.flop_counter.register_flop_formula(torch.ops.{name})"
    )


def signature(batch: Any) -> Hashable:
    """What the cost of a batch depends on: shape, dtype and device of each of its tensors."""
    leaves = (leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor))
    return tuple(_tensor_signature(leaf) for leaf in leaves)


def _tensor_signature(tensor: Tensor) -> Hashable:
    return tuple(tensor.shape), tensor.dtype, tensor.device
