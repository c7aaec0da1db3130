"""Child processes do not import modules from their working directory.

Python starts a worker with `python -c`, which searches that folder first, even for the standard
library. The parent sends a worker the folders that it does need.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "PYTHONSAFEPATH"  # what `python -P` sets


@contextmanager
def safe_path() -> Iterator[None]:
    """Set this for processes started inside; restore the environment afterwards."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before
