"""The base of all errors that bdhf raises itself: `except bdhf.BdhfError` catches every one.

BdhfError
├── InputError         unusable input: a spec, a folder, a storage (bdhf.records)
│   ├── SpecError          a spec that cannot be run (bdhf.experiments.errors)
│   └── StorageError       results that cannot be written
├── ModelError         a model, a loss or a batch that has no curvature product (bdhf.optim)
└── CurvatureError     products that cannot be computed, or cannot be right (bdhf.optim)

A ModelError is also a ValueError, and a CurvatureError a RuntimeError.
"""

from __future__ import annotations

from typing import Any, TypeVar

_T = TypeVar("_T")


class BdhfError(Exception):
    """Base of the errors that bdhf raises itself."""

    @property
    def lines(self) -> tuple[str, ...]:
        """What is wrong, one line per fault."""
        return tuple(str(self).splitlines()) or (type(self).__name__,)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle without the constructor, which may take any arguments."""
        return _without_constructor, (type(self), self.args), self.__dict__


def _without_constructor(cls: type[_T], args: tuple[Any, ...]) -> _T:
    return cls.__new__(cls, *args)
