"""What a piece of work costs, in floating-point operations, and what parts of it may be shared.

Counting (`flop_counter.py`) slows a piece of work down, so each is counted once per key (its kind
and shapes) and remembered. Where only the costs are asked for, a `Tally` does what pieces have in
common once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from bdhf.optim.torch_support.flop_counter import Counter

P = ParamSpec("P")
_T = TypeVar("_T")


class UncountedWarning(UserWarning):
    """An operator whose FLOPs nobody knows, so that costs come out too low."""


class Flops:
    """A meter: the body of `counting` is work, whose cost is added to `spent`.

    >>> import torch
    >>> flops, a = Flops(), torch.ones(2, 3)
    >>> for _ in range(2):
    ...     with flops.counting("product"):
    ...         product = a @ a.T
    >>> flops.spent  # twice 2 · 2 · 3 · 2
    48
    """

    def __init__(self) -> None:
        self.spent = 0
        self._known: dict[Hashable, int] = {}
        self._said: set[str] = set()  # operators that a warning has named
        self.flat = 0  # what every further piece counts; 0: it is counted

    @contextmanager
    def counting(self, key: Hashable) -> Iterator[None]:
        """Charge the body as a piece of work; its cost is counted the first time of `key`."""
        if key in self._known:
            yield
        else:
            with self._measuring() as counter:
                yield
            self._known[key] = counter.total
        self.spent += self._known[key]

    def stop_counting(self) -> None:
        """Let every further piece count as much as all that was counted so far.

        Watching operators on the way back through nested transforms of torch.func ends the process
        (torch 2.13).
        """
        if not self.flat:
            self.flat = max(self.spent, 1)
            warnings.warn(_TRANSFORMED, UncountedWarning, stacklevel=3)

    def part(self, key: Hashable, work: Callable[[], _T]) -> _T:
        """Do `work`, a part of a piece of work that others have too; counted with that piece.

        `key` tells all that what it gives depends on, beside model, batch and settings.
        """
        return work()

    def once(self, key: Hashable, work: Callable[[], _T]) -> _T:
        """Do `work` outside of every piece, such as a check: it is not counted."""
        return work()

    def release(self, let_go: Callable[[], None]) -> None:
        """Let go of what this linearisation needs no longer, unless others share it."""
        let_go()

    def cost(self, key: Hashable) -> int:
        """The cost of one piece of work of `key`, which has been done before."""
        return self._known[key]

    @contextmanager
    def _measuring(self) -> Iterator[Counter]:
        """Count the body; a warning names what could not be counted."""
        counter = Counter()
        if self.flat:
            yield counter
            counter.total = self.flat
            return
        with counter:
            yield counter
        for name, shape in counter.uncounted.items():
            if name not in self._said:
                self._said.add(name)
                warnings.warn(_uncounted(name, shape), UncountedWarning, stacklevel=5)


class Metered(Protocol):
    """What has parts that a meter may have seen before."""

    @property
    def flops(self) -> Flops:
        """The meter."""

    @property
    def shapes(self) -> Hashable:
        """What the costs of its work are kept by."""


S = TypeVar("S", bound=Metered)
_Work = Callable[Concatenate[S, P], _T]


def part(kind: str) -> Callable[[_Work[S, P, _T]], _Work[S, P, _T]]:
    """Make work on something metered a part, as `Flops.part` says, by this kind and its shapes."""

    def decorate(work: _Work[S, P, _T]) -> _Work[S, P, _T]:
        @wraps(work)
        def as_part(on: S, /, *args: P.args, **kwargs: P.kwargs) -> _T:
            return on.flops.part((kind, on.shapes), partial(work, on, *args, **kwargs))

        return as_part

    return decorate


@dataclass(frozen=True)
class Done:
    """A part that was done: what it gave, and what it cost."""

    result: Any
    cost: int


class Tally(Flops):
    """A meter for work whose numbers nobody needs: a part that is known is not done again.

    The costs are those of `Flops`, a part that is spared included. Tallies on one model, batch and
    settings may share `done`, which holds what the parts gave: forward passes and their graphs.

    >>> import torch
    >>> done, a = {}, torch.ones(2, 3)
    >>> for tally in (Tally(done), Tally(done)):
    ...     with tally.counting("product"):
    ...         total = tally.part("square", lambda: a @ a.T).sum()
    ...     tally.spent
    24
    24
    """

    def __init__(self, done: dict[Hashable, Done]) -> None:
        super().__init__()
        self._done = done
        self._spared = 0  # cost of the parts that were known, of all work that is going on

    def part(self, key: Hashable, work: Callable[[], _T]) -> _T:
        """Do `work` if nobody has; give what it gave."""
        if key in self._done:
            self._spared += self._done[key].cost
        else:
            with self._measuring() as counter:
                outcome = work()
            self._done[key] = Done(outcome, counter.total)
        result: _T = self._done[key].result
        return result

    def once(self, key: Hashable, work: Callable[[], _T]) -> _T:
        """Do `work` if nobody has; give what it gave."""
        if key not in self._done:
            self._done[key] = Done(work(), 0)
        result: _T = self._done[key].result
        return result

    def release(self, let_go: Callable[[], None]) -> None:
        """Keep it, for whoever comes next."""

    @contextmanager
    def _measuring(self) -> Iterator[Counter]:
        """Count the body, with the parts that it spares."""
        spared = self._spared
        with super()._measuring() as counter:
            yield counter
        counter.total += self._spared - spared


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
