"""What a tracked number is: a count, or an amount in some unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


def count(unit: str) -> Callable[[Method], Method]:
    """A number that an unchanged algorithm gives again exactly: a change of it is a change."""

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


class Timed:
    """How asv takes times: in one process, five to ten calls in at most half a second."""

    rounds = 1
    repeat = (5, 10, 0.5)
    warmup_time = 0.05
    timeout = 120.0
