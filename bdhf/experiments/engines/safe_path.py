"""Processes that are started do not look for modules in the folder that they are started in.

Python begins a worker by `python -c`, which looks there first, for its own library too. What a
worker does need of that folder, its parent tells it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "PYTHONSAFEPATH"  # what `python -P` sets


@contextmanager
def safe_path() -> Iterator[None]:
    """Start processes so within; the environment of this process is as before afterwards."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before
