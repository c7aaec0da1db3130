"""The cost of a piece of work in floating-point operations, and which parts of it are shared.

Counting (`flop_counter.py`) slows a piece of work down, so each is counted once per key (its kind
and shapes). Where only costs are needed, a `Tally` runs the common parts of pieces once.
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
    """An operator of unknown FLOPs, so that costs are too low."""


class Flops:
    """A meter: `counting` adds the cost of its body to `spent`.

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
        self.flat = 0  # the cost of every further piece; 0: it is counted

    @contextmanager
    def counting(self, key: Hashable) -> Iterator[None]:
        """Charge the body as a piece of work; its cost is counted once per `key`."""
        if key in self._known:
            yield
        else:
            with self._measuring() as counter:
                yield
            self._known[key] = counter.total
        self.spent += self._known[key]

    def stop_counting(self) -> None:
        """Charge every further piece as much as everything so far.

        Intercepting operators in a backward pass through nested transforms of torch.func crashes
        the process (torch 2.13).
        """
        if not self.flat:
            self.flat = max(self.spent, 1)
            warnings.warn(_TRANSFORMED, UncountedWarning, stacklevel=3)

    def part(self, key: Hashable, work: Callable[[], _T]) -> _T:
        """Run `work`, a common part of pieces of work; counted with the current piece.

        `key` is everything that its result depends on besides model, batch and settings.
        """
        return work()

    def once(self, key: Hashable, work: Callable[[], _T]) -> _T:
        """Run `work` outside of every piece, such as a check: it is not counted."""
        return work()

    def release(self, let_go: Callable[[], None]) -> None:
        """Free what this linearisation no longer needs, unless others share it."""
        let_go()

    def cost(self, key: Hashable) -> int:
        """The cost of an earlier piece of work of `key`."""
        return self._known[key]

    @contextmanager
    def _measuring(self) -> Iterator[Counter]:
        """Count the body; warn of what cannot be counted."""
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
    """An object with a meter, whose parts may be shared."""

    @property
    def flops(self) -> Flops:
        """The meter."""

    @property
    def shapes(self) -> Hashable:
        """The key of the costs of its work."""


S = TypeVar("S", bound=Metered)
_Work = Callable[Concatenate[S, P], _T]


def part(kind: str) -> Callable[[_Work[S, P, _T]], _Work[S, P, _T]]:
    """Make a method of something metered a `Flops.part`, with its kind and shapes as key."""

    def decorate(work: _Work[S, P, _T]) -> _Work[S, P, _T]:
        @wraps(work)
        def as_part(on: S, /, *args: P.args, **kwargs: P.kwargs) -> _T:
            return on.flops.part((kind, on.shapes), partial(work, on, *args, **kwargs))

        return as_part

    return decorate


@dataclass(frozen=True)
class Done:
    """A part that has run: its result and its cost."""

    result: Any
    cost: int


class Tally(Flops):
    """A meter for work whose results are not needed: it runs every part once.

    The costs are those of `Flops`, including skipped parts. Tallies on one model, batch and
    settings may share `done`, which holds the results of parts: forward passes and their graphs.

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
        self._spared = 0  # cost of the skipped parts of the current work

    def part(self, key: Hashable, work: Callable[[], _T]) -> _T:
        """The result of `work`, which runs once per key."""
        if key in self._done:
            self._spared += self._done[key].cost
        else:
            with self._measuring() as counter:
                outcome = work()
            self._done[key] = Done(outcome, counter.total)
        result: _T = self._done[key].result
        return result

    def once(self, key: Hashable, work: Callable[[], _T]) -> _T:
        """The result of `work`, which runs once per key."""
        if key not in self._done:
            self._done[key] = Done(work(), 0)
        result: _T = self._done[key].result
        return result

    def release(self, let_go: Callable[[], None]) -> None:
        """Keep it, since others may share it."""

    @contextmanager
    def _measuring(self) -> Iterator[Counter]:
        """Count the body, including skipped parts."""
        spared = self._spared
        with super()._measuring() as counter:
            yield counter
        counter.total += self._spared - spared


_TRANSFORMED = (
    "the forward pass nests transforms of torch.func, where operators cannot be counted: every "
    "product and loss counts as one linearisation in gradient_equivalents and budgets"
)


def _uncounted(name: str, shape: tuple[int, ...]) -> str:
    return (
        f"the operator {name}, which reads a parameter of shape {shape}, has no FLOP formula: it "
        "counts as 0 in gradient_equivalents, estimates and budgets; register one with "
        f"torch.utils.flop_counter.register_flop_formula(torch.ops.{name})"
    )
