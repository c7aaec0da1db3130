"""Ctrl-C, and being told to end: once is cleanly, twice is at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

#: A person; a scheduler, or a machine that goes down.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first signal; at a second one the process ends as it stands.

    What it leaves half-written has a name that says so, and is swept by the next one. Handlers are
    those of before afterwards. In other threads than the main one, which alone may set handlers,
    nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def at_once(number: int, frame: FrameType | None) -> None:
        os._exit(128 + number)

    def cleanly(number: int, frame: FrameType | None) -> None:
        for other in SIGNALS:
            signal.signal(other, at_once)
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, cleanly)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Hold signals back; processes that are started meanwhile hear none until they let them in."""
    resource_tracker.ensure_running()  # it is started first: starting it lets signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
