"""Tracked numbers: a count, or an amount in some unit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

#: Combination of parameters -> its numbers by name, or the reason for none.
Gathered = dict[tuple[str, ...], Mapping[str, float] | str]

Method = TypeVar("Method", bound=Callable[..., Any])


def count(unit: str) -> Callable[[Method], Method]:
    """A number that an unchanged algorithm reproduces exactly."""

    def marked(method: Method) -> Method:
        method.unit, method.exact = unit, True  # type: ignore[attr-defined]
        return method

    return marked


def amount(unit: str) -> Callable[[Method], Method]:
    """A number that rounding may change a little: bytes, or a loss."""

    def marked(method: Method) -> Method:
        method.unit = unit  # type: ignore[attr-defined]
        return method

    return marked


def gathered(
    take: Callable[..., Mapping[str, float]], parameters: Iterable[Sequence[str]]
) -> Gathered:
    """The result of `take` for every combination of the parameters, or its error.

    For a `setup_cache`: several numbers of one computation.
    """
    numbers: Gathered = {}
    for combination in itertools.product(*parameters):
        try:
            numbers[combination] = take(*combination)
        except Exception as error:
            numbers[combination] = f"{type(error).__name__}: {error}"
    return numbers


def taken(gathered: Gathered, combination: tuple[str, ...]) -> Mapping[str, float]:
    """The numbers of one combination. Raises RuntimeError with the reason for none."""
    numbers = gathered[combination]
    if isinstance(numbers, str):
        raise RuntimeError(numbers)
    return numbers


class Timed:
    """How asv takes times: in one process, five to ten calls in at most half a second."""

    rounds = 1
    repeat = (5, 10, 0.5)
    warmup_time = 0.05
    timeout = 120.0
