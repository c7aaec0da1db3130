"""Errors of torch inside a method of computing products, where another method may work.

A failure is a value: the caller reports its reason, and continues with the next method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from bdhf.errors import BdhfError

_T = TypeVar("_T")

#: What torch and Python raise where an operator does not support a method.
FAILURE_KINDS = (
    RuntimeError, TypeError, ValueError, AssertionError, LookupError, AttributeError,
    ArithmeticError,
)  # fmt: skip

#: Messages of torch, in lower case, for lack of memory without its own exception.
_OUT_OF_MEMORY = (
    "can't allocate memory",  # on the CPU
    "not enough memory",  # on the CPU under Windows
    "out of memory",  # of a CUDA call outside torch's allocator
    "status_alloc_failed",  # of cuBLAS, cuDNN
)


@dataclass(frozen=True)
class Failure:
    """An exception of a method, without its frames, which reference graphs."""

    error: Exception

    @property
    def line(self) -> str:
        """The first line of its message, or its type where it has none."""
        lines = str(self.error).strip().splitlines()
        return lines[0] if lines else type(self.error).__name__

    @property
    def reason(self) -> str:
        """Its type and the first line of its message, for `explain`."""
        name = type(self.error).__name__
        return name if self.line == name else f"{name}: {self.line}"


def attempt(work: Callable[[], _T]) -> _T | Failure:
    """The result of `work`, or its failure.

    Raises what no other method can avoid: lack of memory, refusals of bdhf, and every exception
    that is not one of `FAILURE_KINDS`, such as KeyboardInterrupt.
    """
    try:
        return work()
    except FAILURE_KINDS as error:
        if isinstance(error, BdhfError) or is_out_of_memory(error):
            raise
        error.__traceback__ = error.__context__ = None
        return Failure(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the CPU or on a device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)
